"""Orders joined with their payments, by order id: which letters are due. Pure."""

from datetime import datetime, timedelta

from email_service.state import JOINS, PAYMENT_ROWS, Email, EmailKind, Join, PaymentRow
from runtime.model.service import Context
from runtime.state.ttl_table import KEPT
from schemas.messages import Order, OrderState, Payment
from schemas.payments import payment_key
from schemas.topics import DAY, PAYMENTS, Topic, repartition

PAYMENTS_BY_ORDER = repartition("email", PAYMENTS, "order", lambda p: p.order_id)
LETTERS_BY_CUSTOMER = Topic(
    "email-letters-by-customer", Email, lambda letter: str(letter.order.customer_id), "email", DAY, internal=True
)

OTHER_CURRENCY = "payment in another currency"
"""Counted: a payment that pays nothing, for it is not in the currency of orders."""
PAYMENT_DIFFERS = "payment differs"
"""Counted: a payment that came again under its id and said something else. The first one stays."""
UNPAID_FORGOTTEN = "unpaid order forgotten"
"""Counted: a validated order that nobody paid in full for so long that it will not be confirmed any more."""
PAYMENT_FORGOTTEN = "payment without order forgotten"
"""Counted: an order id that payments came for, and no validated order for as long."""

_TRUSTED = timedelta(days=1)
"""How far from the worker's clock the time of a message may be for a letter to be dated by it."""


def route(payment: Payment, ctx: Context) -> None:
    """Takes a payment to where its order is."""
    ctx.send(PAYMENTS_BY_ORDER, payment)


class PaymentJoin:
    """Joins orders with their payments: a validated one is confirmed once it is paid in full, however late.

    Arguments:
        currency: the one that orders are in.
        unpaid: how long an order that is not paid in full, or payments without their order, are remembered.
        repeats: whether what was told is told again when what led to it is seen again: at least once, a crash may have
            come between the row that says so and the letter.
    """

    def __init__(self, currency: str, unpaid: timedelta, *, repeats: bool = False) -> None:
        self.currency = currency
        self.unpaid = unpaid
        self.repeats = repeats

    def on_order(self, order: Order, ctx: Context) -> None:
        """An order as it was decided or shipped. What was told once is not told again."""
        if order.state is OrderState.CREATED:
            return
        join = self._join(order.id, ctx)
        if order.state is OrderState.FAILED:
            join = self._tell(EmailKind.FAILED, order, join.model_copy(update={"failed": True}), ctx)
        elif order.state is OrderState.SHIPPED:
            join = self._tell(EmailKind.SHIPPED, order, join, ctx)
        elif join.validated_at is None or self.repeats:
            if join.validated_at is None:
                join = join.model_copy(update={"order": order, "validated_at": ctx.time})
            ctx.send(LETTERS_BY_CUSTOMER, Email(kind=None, order=order))
            join = self._meet(join, ctx)
        ctx.put(JOINS.rows, order.id, join)

    def on_payment(self, payment: Payment, ctx: Context) -> None:
        """A payment: of several, the sum counts."""
        join, key = self._join(payment.order_id, ctx), payment_key(payment.order_id, payment.id)
        row = PAYMENT_ROWS.get(ctx, key)
        if not join.paid.includes(payment.id, row):
            join = self._add(payment, row, join, ctx)
            if EmailKind.VALIDATED not in join.told:
                join = self._meet(join, ctx)
        else:
            if row is None:
                PAYMENT_ROWS.remember(ctx, key, PaymentRow(order_id=payment.order_id, **_said(join, payment)))
            elif row.differs(payment):
                ctx.count(PAYMENT_DIFFERS)
            if self.repeats and join.payment is not None and payment.id == join.payment.id:
                join = self._meet(join, ctx)
        ctx.put(JOINS.rows, payment.order_id, join)

    def forget(self, hour: str, ctx: Context) -> None:
        """Forgets the joins of an hour long past, and the payments they are made of, but for those that are open."""
        for order_id, row in JOINS.forget(hour, ctx):
            join = self._migrated(row, ctx)
            if not join.open and row.open:  # of an earlier version, and told only now
                JOINS.remember(ctx, order_id, join.model_copy(update={"before": None}))
            elif join.open and ctx.now - (join.since or ctx.now - KEPT) < self.unpaid:
                since = join.since or ctx.now - KEPT
                JOINS.remember(ctx, order_id, join.model_copy(update={"before": None, "since": since}))
            elif join.open:
                ctx.count(PAYMENT_FORGOTTEN if join.order is None else UNPAID_FORGOTTEN)
        for key, paid in PAYMENT_ROWS.forget(hour, ctx):
            if JOINS.get(ctx, paid.order_id) is not None:  # else a payment that came again would count twice
                PAYMENT_ROWS.remember(ctx, key, paid.model_copy(update={"before": None}))

    def _join(self, order_id: str, ctx: Context) -> Join:
        join = JOINS.get(ctx, order_id)
        return self._migrated(join, ctx) if join else JOINS.remember(ctx, order_id, Join(since=ctx.now))

    def _migrated(self, join: Join, ctx: Context) -> Join:
        """With the payment that a row of an earlier version has among its sums. It may be paid by that already."""
        payment = join.payment
        if payment is None or join.paid.counted or join.paid.ignored:
            return join
        join = self._add(payment, None, join.model_copy(update={"payment": None}), ctx)
        return self._meet(join, ctx) if join.open else join

    def _add(self, payment: Payment, row: PaymentRow | None, join: Join, ctx: Context) -> Join:
        paid = join.paid.plus(payment, self.currency, repeats=self.repeats)
        said = paid.row(payment).model_dump()
        key = payment_key(payment.order_id, payment.id)
        if row is None:
            PAYMENT_ROWS.remember(ctx, key, PaymentRow(order_id=payment.order_id, **said))
        else:  # it became durable, and the sum did not
            ctx.put(PAYMENT_ROWS.rows, key, row.model_copy(update=said))
        changes: dict[str, object] = {"paid": paid}
        if payment.ccy != self.currency:
            ctx.count(OTHER_CURRENCY)
        elif EmailKind.VALIDATED not in join.told:
            changes["payment"] = payment
        return join.model_copy(update=changes)

    def _meet(self, join: Join, ctx: Context) -> Join:
        order = join.order
        if order is None or join.validated_at is None or not join.paid.covers(order.value, self.currency):
            return join
        return self._tell(EmailKind.VALIDATED, order, join, ctx)

    def _tell(self, kind: EmailKind, order: Order, join: Join, ctx: Context) -> Join:
        if kind in join.told and not self.repeats:
            return join
        letter = Email(kind=kind, order=order, at=_date(ctx))
        if kind is EmailKind.VALIDATED:
            paid: dict[str, object] = {"paid": join.paid.sum(self.currency), "payments": join.paid.counted}
            letter = letter.model_copy(update={"payment": join.payment, **paid})
        ctx.send(LETTERS_BY_CUSTOMER, letter)
        return join if kind in join.told else join.model_copy(update={"told": (*join.told, kind)})


def _said(join: Join, payment: Payment) -> dict[str, object]:
    """The row of a payment that is among the latest sums, where the row itself did not become durable."""
    return {"number": join.paid.counted + join.paid.ignored, "ccy": payment.ccy, "amount": payment.amount}


def _date(ctx: Context) -> datetime:
    """The date of a letter: the time of the message that made it due, which is the same when it is read again.

    That of the worker where another program's clock or unit cannot be right.
    """
    return ctx.time if abs(ctx.now - ctx.time) <= _TRUSTED else ctx.now
