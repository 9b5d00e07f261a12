"""Stream join of orders with their payments, by order id: issues the e-mails that are due. Pure."""

from datetime import datetime, timedelta

from email_service.state import JOINS, PAYMENT_ROWS, Email, EmailKind, Join, PaymentRow
from runtime.model.service import Context
from runtime.state.ttl_table import TTL
from schemas.messages import FIRST_ATTEMPT, Order, OrderState, Payment
from schemas.payments import OTHER_CURRENCY, PAYMENT_DIFFERS, payment_key
from schemas.topics import DAY, PAYMENTS, Topic, repartition

PAYMENTS_BY_ORDER = repartition("email", PAYMENTS, "order", lambda p: p.order_id)
EMAILS_BY_CUSTOMER = Topic(
    "email-letters-by-customer", Email, lambda email: str(email.order.customer_id), "email", DAY, internal=True
)

UNPAID_FORGOTTEN = "unpaid order forgotten"
"""Counted event: a validated order not paid in full within the time limit. It will not be confirmed."""
PAYMENT_FORGOTTEN = "payment without order forgotten"
"""Counted event: an order id with payments, and no validated order within the time limit."""

EVENTS = (UNPAID_FORGOTTEN, PAYMENT_FORGOTTEN, OTHER_CURRENCY, PAYMENT_DIFFERS)
"""Events that the join counts."""

_MAX_CLOCK_SKEW = timedelta(days=1)
"""A message's timestamp dates an e-mail if it differs less than this from the worker's clock."""


class PaymentJoin:
    """Joins orders with their payments, and confirms a validated order once it is paid in full.

    Arguments:
        currency: currency of orders.
        unpaid_ttl: how long an order not paid in full, or payments without an order, are kept.
    """

    def __init__(self, currency: str, unpaid_ttl: timedelta) -> None:
        self.currency = currency
        self.unpaid_ttl = unpaid_ttl

    def on_order(self, order: Order, ctx: Context) -> None:
        """Issues the e-mail about a decided or shipped order. A repeated state issues nothing."""
        if order.state is OrderState.CREATED:
            return
        join = self._join(order.id, ctx)
        known = join.attempt or FIRST_ATTEMPT
        if order.attempt_number < known:
            return
        if order.attempt_number > known:  # it had failed, and was decided anew
            fields = {"failed": False, "validated_at": None, "issued": (), "attempt": order.attempt}
            join = join.model_copy(update=fields)
        if order.state is OrderState.FAILED:
            join = self._send_email(EmailKind.FAILED, order, join.model_copy(update={"failed": True}), ctx)
        elif order.state is OrderState.CANCELLED:
            join = self._send_email(EmailKind.CANCELLED, order, join.model_copy(update={"cancelled": True}), ctx)
        elif order.state is OrderState.SHIPPED:
            join = self._send_email(EmailKind.SHIPPED, order, join, ctx)
        elif join.validated_at is None:
            join = join.model_copy(update={"order": order, "validated_at": ctx.time, "trace": ctx.trace})
            ctx.send(EMAILS_BY_CUSTOMER, Email(kind=None, order=order))
            join = self._confirm_if_paid(join, ctx)
        ctx.put(JOINS.rows, order.id, join)

    def on_payment(self, payment: Payment, ctx: Context) -> None:
        """Adds a payment to its order. Distinct payments are summed."""
        join, key = self._join(payment.order_id, ctx), payment_key(payment.order_id, payment.id)
        row = PAYMENT_ROWS.get(ctx, key)
        if not join.paid.includes(payment.id, row):
            join = self._add_payment(payment, row, join, ctx)
            if EmailKind.VALIDATED not in join.issued:
                join = self._confirm_if_paid(join, ctx)
        elif row is None:
            PAYMENT_ROWS.add(ctx, key, PaymentRow(order_id=payment.order_id, **_row_fields(join, payment)))
        elif row.differs(payment):
            ctx.count(PAYMENT_DIFFERS)
        ctx.put(JOINS.rows, payment.order_id, join)

    def on_join_expired(self, order_id: str, row: Join, ctx: Context) -> None:
        """Keeps an open join for `unpaid_ttl`."""
        join = self._migrated(row, ctx)
        if not join.open and row.open:  # a row of an earlier version, confirmed by its migration
            JOINS.add(ctx, order_id, join.model_copy(update={"before": None}))
        elif join.open and ctx.now - (join.since or ctx.now - TTL) < self.unpaid_ttl:
            since = join.since or ctx.now - TTL
            JOINS.add(ctx, order_id, join.model_copy(update={"before": None, "since": since}))
        elif join.open:
            ctx.count(PAYMENT_FORGOTTEN if join.order is None else UNPAID_FORGOTTEN)

    def on_payment_expired(self, key: str, row: PaymentRow, ctx: Context) -> None:
        """Keeps the payment of a join that is kept: a repeated payment would count twice."""
        if JOINS.get(ctx, row.order_id) is not None:
            PAYMENT_ROWS.add(ctx, key, row.model_copy(update={"before": None}))

    def _join(self, order_id: str, ctx: Context) -> Join:
        join = JOINS.get(ctx, order_id)
        return self._migrated(join, ctx) if join else JOINS.add(ctx, order_id, Join(since=ctx.now))

    def _migrated(self, join: Join, ctx: Context) -> Join:
        """Adds the single payment in a row of an earlier version to its totals, which may complete them."""
        payment = join.payment
        if payment is None or join.paid.counted or join.paid.ignored:
            return join
        join = self._add_payment(payment, None, join.model_copy(update={"payment": None}), ctx)
        return self._confirm_if_paid(join, ctx) if join.open else join

    def _add_payment(self, payment: Payment, row: PaymentRow | None, join: Join, ctx: Context) -> Join:
        paid = join.paid.plus(payment, self.currency)
        row_fields = paid.row(payment).model_dump()
        key = payment_key(payment.order_id, payment.id)
        if row is None:
            PAYMENT_ROWS.add(ctx, key, PaymentRow(order_id=payment.order_id, **row_fields))
        else:  # a row of an earlier version that became durable without the totals
            ctx.put(PAYMENT_ROWS.rows, key, row.model_copy(update=row_fields))
        changes: dict[str, object] = {"paid": paid}
        if payment.ccy != self.currency:
            ctx.count(OTHER_CURRENCY)
        elif EmailKind.VALIDATED not in join.issued:
            changes["payment"] = payment
        return join.model_copy(update=changes)

    def _confirm_if_paid(self, join: Join, ctx: Context) -> Join:
        order = join.order
        if order is None or join.validated_at is None or join.cancelled:
            return join
        if not join.paid.covers(order.value, self.currency):
            return join
        with ctx.continuing(join.trace):  # also if it is a payment that completes it
            return self._send_email(EmailKind.VALIDATED, order, join, ctx)

    def _send_email(self, kind: EmailKind, order: Order, join: Join, ctx: Context) -> Join:
        if kind in join.issued:
            return join
        email = Email(kind=kind, order=order, at=_date(ctx))
        if kind in {EmailKind.VALIDATED, EmailKind.CANCELLED}:
            paid: dict[str, object] = {"paid": join.paid.sum(self.currency), "payments": join.paid.counted}
            email = email.model_copy(update={"payment": join.payment, **paid})
        ctx.send(EMAILS_BY_CUSTOMER, email)
        return join.model_copy(update={"issued": (*join.issued, kind)})


def _row_fields(join: Join, payment: Payment) -> dict[str, object]:
    """Fields of the row of a payment in the latest totals, for a row that did not become durable."""
    return {"number": join.paid.counted + join.paid.ignored, "ccy": payment.ccy, "amount": payment.amount}


def _date(ctx: Context) -> datetime:
    """Date of an e-mail: the timestamp of the message that made it due.

    The timestamp is the same when the message is replayed. Where it cannot be right (wrong clock or unit of another
    producer), the worker's clock.
    """
    return ctx.time if abs(ctx.now - ctx.time) <= _MAX_CLOCK_SKEW else ctx.now
