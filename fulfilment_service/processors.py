"""Prerequisite gate: joins the events of an order, in any order of arrival. Pure."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from decimal import Decimal

from fulfilment_service.state import CHECK_INS, PAYMENTS_COUNTED, PROGRESS, SEEN_CHECK_INS, Progress, WaitingCheckin
from runtime.model.service import Context, Timer
from schemas.messages import (
    FIRST_ATTEMPT,
    Cancellation,
    CheckinRejected,
    Fulfilled,
    HomeCheckin,
    Need,
    Order,
    OrderState,
    Payment,
    Refund,
)
from schemas.payments import OTHER_CURRENCY, PAYMENT_DIFFERS, payment_key
from schemas.topics import CANCELLATIONS, CHECKIN_REJECTIONS, FULFILMENTS, PAYMENTS, REFUNDS, repartition

PAYMENTS_BY_ORDER = repartition("fulfilment", PAYMENTS, "order", lambda p: p.order_id)

UNPAID = "unpaid order cancelled"
"""Counted event: a validated order that was not paid in time. It is asked to be cancelled."""

EVENTS = (UNPAID, OTHER_CURRENCY, PAYMENT_DIFFERS)
"""Counted events."""

_EMPTY = Progress()
_REJECTIONS = {
    OrderState.FAILED: "the order has failed",
    OrderState.CANCELLED: "the order was cancelled",
    None: "there is no such order",
}
"""Why a check-in is rejected, by the state of its order."""
_REOPENED = frozenset({None, OrderState.FAILED})
_ACCEPTED = frozenset({OrderState.VALIDATED, OrderState.SHIPPED})
_NEXT_STATES: Mapping[OrderState | None, Collection[OrderState]] = {
    None: frozenset(OrderState),
    OrderState.CREATED: frozenset(OrderState) - {OrderState.CREATED},
    OrderState.VALIDATED: frozenset({OrderState.SHIPPED, OrderState.CANCELLED}),
}


def missing(progress: Progress, needs: tuple[Need, ...], currency: str) -> tuple[Need, ...]:
    """The prerequisites that are not met yet."""
    happened = {
        Need.VALIDATED: progress.state in _ACCEPTED,
        Need.PAID: progress.paid_in(currency),
        Need.CHECKED_IN: progress.checked_in,
    }
    return tuple(need for need in needs if not happened[need])


class FulfilmentGate:
    """Sends a fulfilment for an order once all prerequisites are met.

    Arguments:
        needs: prerequisites, each once.
        patience: time a check-in waits for its order to become known.
        currency: currency of orders.
        payment_deadline: time for the payment of a validated order, which is cancelled otherwise; zero: for ever.
    """

    def __init__(
        self, needs: tuple[Need, ...], patience: timedelta, currency: str, payment_deadline: timedelta = timedelta()
    ) -> None:
        self.needs = needs
        self.patience = patience
        self.currency = currency
        self.payment_deadline = payment_deadline
        self._unpaid = Timer("unpaid", self._on_unpaid)
        self._deadline = Timer("patience", self._on_patience_over, prefix="order/")
        self._next_slice = Timer("next slice", self._on_next_slice, prefix="answer/", inherits=False)
        purge = Timer("purge", _purge_resolved, prefix="rejected/")
        self.timers = (self._deadline, self._next_slice, purge, self._unpaid)

    def on_order(self, order: Order, ctx: Context) -> None:
        """Processes a state of an order, and resolves the check-ins that waited for it."""
        progress = _of_attempt(order, self._progress(order.id, ctx))
        if order.attempt != progress.attempt or order.state not in _NEXT_STATES.get(progress.state, ()):
            return  # a repeated or outdated state
        progress = progress.model_copy(update={"state": order.state, "value": order.value, "trace": ctx.trace})
        ctx.schedule(self._deadline, order.id, None)
        if order.state in _ACCEPTED and _has_waiting_check_in(order.id, ctx):
            progress = progress.model_copy(update={"checked_in": True})
        if order.state is OrderState.VALIDATED and self.payment_deadline and not progress.paid_in(self.currency):
            ctx.schedule(self._unpaid, order.id, ctx.now + self.payment_deadline)
        elif order.state is OrderState.CANCELLED:
            self._cancel(order.id, progress, ctx)
        self._ship_if_ready(order.id, progress, ctx)
        self._resolve_check_ins(order.id, 0, ctx)

    def on_payment(self, payment: Payment, ctx: Context) -> None:
        """Adds a payment to its order. Distinct payments are summed."""
        progress, key = self._progress(payment.order_id, ctx), payment_key(payment.order_id, payment.id)
        row = ctx.get(PAYMENTS_COUNTED, key)
        if progress.received.includes(payment.id, row):
            if row is not None and row.differs(payment):
                ctx.count(PAYMENT_DIFFERS)
            return
        if payment.ccy != self.currency:
            ctx.count(OTHER_CURRENCY)
        received = progress.received.plus(payment, self.currency)
        ctx.put(PAYMENTS_COUNTED, key, received.row(payment))
        progress = progress.model_copy(update={"received": received})
        if progress.paid_in(self.currency):
            ctx.schedule(self._unpaid, payment.order_id, None)
        if progress.state is OrderState.CANCELLED and payment.amount > 0:  # a negative one carries out a refund
            _refund(payment.order_id, payment.id, payment.ccy, payment.amount, ctx)
        self._ship_if_ready(payment.order_id, progress, ctx)

    def on_check_in(self, check_in: HomeCheckin, ctx: Context) -> None:
        """Accepts a check-in of a validated order, rejects one of a failed or cancelled order, and queues any other.

        An outbox may deliver a check-in more than once; it counts once.
        """
        if not SEEN_CHECK_INS.is_new(ctx, check_in.event_id):
            return
        order_id = check_in.order_no
        progress = self._progress(order_id, ctx)
        if progress.state in _ACCEPTED:
            self._ship_if_ready(order_id, progress.model_copy(update={"checked_in": True}), ctx)
        elif progress.state in {OrderState.FAILED, OrderState.CANCELLED}:
            _send_rejection(order_id, check_in.event_id, _REJECTIONS[progress.state], ctx)
        elif CHECK_INS.append(ctx, order_id, check_in.event_id, WaitingCheckin(event_id=check_in.event_id)):
            if progress.state is None and not progress.waiting:
                ctx.schedule(self._deadline, order_id, ctx.now + self.patience)
            ctx.put(PROGRESS, order_id, progress.model_copy(update={"waiting": progress.waiting + 1}))

    def _on_patience_over(self, order_id: str, ctx: Context) -> None:
        """Rejects the check-ins of an order that did not become known in time."""
        if self._progress(order_id, ctx).state is None:
            self._resolve_check_ins(order_id, 0, ctx)

    def _on_unpaid(self, order_id: str, ctx: Context) -> None:
        """Asks to cancel an order that was not paid in time."""
        progress = self._progress(order_id, ctx)
        undecided = progress.state is OrderState.VALIDATED and not progress.fulfilled  # fulfilled: it is being shipped
        if undecided and not progress.paid_in(self.currency):
            ctx.count(UNPAID)
            reason = f"not paid within {self.payment_deadline.total_seconds():g} s"
            ctx.send(CANCELLATIONS, Cancellation(order_id=order_id, reason=reason))

    def _cancel(self, order_id: str, progress: Progress, ctx: Context) -> None:
        """Refunds what was paid for a cancelled order, in each currency."""
        ctx.schedule(self._unpaid, order_id, None)
        for ccy, amount in progress.received.sums.items():
            if amount > 0:
                _refund(order_id, order_id if ccy == self.currency else f"{order_id}/{ccy}", ccy, amount, ctx)

    def _on_next_slice(self, number_and_order: str, ctx: Context) -> None:
        number, _, order_id = number_and_order.partition("/")
        self._resolve_check_ins(order_id, int(number), ctx)

    def _ship_if_ready(self, order_id: str, progress: Progress, ctx: Context) -> None:
        due = not progress.fulfilled and progress.state is OrderState.VALIDATED
        if due and not missing(progress, self.needs, self.currency):
            progress = progress.model_copy(update={"fulfilled": True})
            with ctx.continuing(progress.trace):  # also if it is a payment or check-in that completes it
                ctx.send(FULFILMENTS, Fulfilled(order_id=order_id))
        ctx.put(PROGRESS, order_id, progress)

    def _resolve_check_ins(self, order_id: str, begin: int, ctx: Context) -> None:
        """Accepts or rejects a slice of the queued check-ins from number `begin` on; schedules the next."""
        numbers = CHECK_INS.numbers(ctx, order_id)
        progress = ctx.get(PROGRESS, order_id) or _EMPTY
        if not numbers or progress.state is OrderState.CREATED:
            return  # none queued, or the order is undecided
        resolved: list[WaitingCheckin] = []

        def resolve(waiting: WaitingCheckin) -> None:
            if waiting.reason is None:  # else rejected by an earlier version
                resolved.append(waiting)
                if progress.state not in _ACCEPTED:
                    reason = _REJECTIONS.get(progress.state, _REJECTIONS[None])
                    _send_rejection(order_id, waiting.event_id, reason, ctx)

        following = CHECK_INS.process_slice(ctx, order_id, begin, resolve)
        if following is not None:
            ctx.schedule(self._next_slice, f"{following}/{order_id}", ctx.now)
        waiting = max(progress.waiting - len(resolved), 0)
        _put_or_delete(order_id, progress.model_copy(update={"waiting": waiting}), ctx)

    def _progress(self, order_id: str, ctx: Context) -> Progress:
        """Reads the row of an order, and migrates a row of an earlier version.

        Its payments and check-ins move to rows of their own, all at once, since the row has a megabyte at most.
        """
        progress = ctx.get(PROGRESS, order_id) or _EMPTY
        if not (progress.paid or progress.check_ins or progress.rejected):
            return progress
        received = progress.received
        for id_, amount in progress.paid.items():
            payment = Payment(id=id_, order_id=order_id, ccy=self.currency, amount=amount)
            received = received.plus(payment, self.currency)
            ctx.put(PAYMENTS_COUNTED, payment_key(order_id, id_), received.row(payment))
        for rejected in progress.rejected:
            CHECK_INS.append(
                ctx,
                order_id,
                rejected.event_id,
                WaitingCheckin(event_id=rejected.event_id, reason=rejected.reason),
            )
        for check_in in progress.check_ins:
            CHECK_INS.append(ctx, order_id, check_in.event_id, WaitingCheckin(event_id=check_in.event_id))
        waiting = progress.waiting + len(progress.check_ins)
        moved = {"received": received, "waiting": waiting, "paid": {}, "check_ins": (), "rejected": ()}
        progress = progress.model_copy(update=moved)
        ctx.put(PROGRESS, order_id, progress)
        return progress


def _of_attempt(order: Order, progress: Progress) -> Progress:
    """The progress of a failed order that is decided anew begins again, except for its payments."""
    later = order.attempt_number > (progress.attempt or FIRST_ATTEMPT)
    # Of an undecided order, a CREATED one does not count: the orders service ignores it.
    accepted = order.state.decided and progress.state is OrderState.CREATED
    if later and (progress.state in _REOPENED or accepted):
        return progress.model_copy(update={"state": None, "attempt": order.attempt})
    return progress


def _purge_resolved(order_id: str, ctx: Context) -> None:
    """Deletes the check-ins that an earlier version kept after it had resolved them."""
    progress = ctx.get(PROGRESS, order_id)
    accepted = progress is not None and progress.state in _ACCEPTED
    for number in CHECK_INS.numbers(ctx, order_id):
        waiting = CHECK_INS.get(ctx, order_id, number)
        if waiting is not None and waiting.reason is None and not accepted:
            break
        CHECK_INS.remove(ctx, order_id, number)
        CHECK_INS.advance(ctx, order_id, number + 1)


def _has_waiting_check_in(order_id: str, ctx: Context) -> bool:
    """Whether a check-in is waiting and not rejected. Only the last in the queue can be."""
    numbers = CHECK_INS.numbers(ctx, order_id)
    last = CHECK_INS.get(ctx, order_id, numbers[-1]) if numbers else None
    return last is not None and last.reason is None


def _put_or_delete(order_id: str, progress: Progress, ctx: Context) -> None:
    if progress == _EMPTY:
        ctx.delete(PROGRESS, order_id)
    else:
        ctx.put(PROGRESS, order_id, progress)


def _refund(order_id: str, refund_id: str, ccy: str, amount: Decimal, ctx: Context) -> None:
    ctx.send(REFUNDS, Refund(refund_id=refund_id, order_id=order_id, ccy=ccy, amount=amount))


def _send_rejection(order_id: str, event_id: str, reason: str, ctx: Context) -> None:
    ctx.send(CHECKIN_REJECTIONS, CheckinRejected(event_id=event_id, order_no=order_id, reason=reason))
