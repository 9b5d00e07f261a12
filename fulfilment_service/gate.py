"""Prerequisite gate: joins the events of an order, in any order of arrival. Pure."""

from datetime import timedelta

from fulfilment_service.state import CHECK_INS, PAYMENTS_COUNTED, PROGRESS, SEEN_CHECK_INS, Progress, WaitingCheckin
from runtime.model.service import Context
from runtime.state.queues import SLICE
from runtime.state.ttl_table import TTL
from schemas.messages import CheckinRejected, Fulfilled, HomeCheckin, Need, Order, OrderState, Payment
from schemas.payments import payment_key
from schemas.topics import CHECKIN_REJECTIONS, FULFILMENTS, PAYMENTS, repartition

PAYMENTS_BY_ORDER = repartition("fulfilment", PAYMENTS, "order", lambda p: p.order_id)

OTHER_CURRENCY = "payment in another currency"
"""Counted event: a payment in another currency than orders. It pays nothing."""
PAYMENT_DIFFERS = "payment differs"
"""Counted event: a payment repeated under its id with other content. The first one counts."""

_EMPTY = Progress()
_ORDER_FAILED, _ORDER_UNKNOWN = "the order has failed", "there is no such order"
_ACCEPTED = frozenset({OrderState.VALIDATED, OrderState.SHIPPED})
_ORDER, _RESOLVE, _PURGE = "order/", "answer/", "rejected/"
"""Prefixes of timers: a wait for an order is over, check-ins to resolve, resolved ones to delete.

Timers without a prefix are hours of the TTL table.
"""


def repartition_payment(payment: Payment, ctx: Context) -> None:
    """Repartitions a payment by its order."""
    ctx.send(PAYMENTS_BY_ORDER, payment)


def missing(progress: Progress, needs: tuple[Need, ...], currency: str) -> tuple[Need, ...]:
    """The prerequisites that are not met yet."""
    happened = {
        Need.VALIDATED: progress.state in _ACCEPTED,
        Need.PAID: progress.value is not None and progress.sum(currency) >= progress.value,
        Need.CHECKED_IN: progress.checked_in,
    }
    return tuple(need for need in needs if not happened[need])


class FulfilmentGate:
    """Sends a fulfilment for an order once all prerequisites are met.

    Arguments:
        needs: prerequisites, each once.
        patience: time a check-in waits for its order to become known.
        currency: currency of orders.
        at_least_once: whether output is sent again when its input is read again: a crash may have separated the output
            from the row that records it. Rejected check-ins are then kept for a while.
    """

    def __init__(
        self, needs: tuple[Need, ...], patience: timedelta, currency: str, *, at_least_once: bool = False
    ) -> None:
        self.needs = needs
        self.patience = patience
        self.currency = currency
        self.at_least_once = at_least_once

    def on_order(self, order: Order, ctx: Context) -> None:
        """Processes a state of an order, and resolves the check-ins that waited for it."""
        progress = self._progress(order.id, ctx)
        known = progress.state
        if known is not None and (known.decided or not order.state.decided) and order.state is not OrderState.SHIPPED:
            self._resend(order, progress, ctx)
            return  # a repeated or outdated state
        progress = progress.model_copy(update={"state": order.state, "value": order.value})
        ctx.schedule(_ORDER + order.id, None)
        if order.state in _ACCEPTED and _has_waiting_check_in(order.id, ctx):
            progress = progress.model_copy(update={"checked_in": True})
        if order.state is OrderState.SHIPPED:
            ctx.put(PROGRESS, order.id, progress)  # follows from the fulfilment sent here
        else:
            self._ship_if_ready(order.id, progress, ctx)
        self._resolve_check_ins(order.id, 0, ctx)

    def on_payment(self, payment: Payment, ctx: Context) -> None:
        """Adds a payment to its order. Distinct payments are summed."""
        progress, key = self._progress(payment.order_id, ctx), payment_key(payment.order_id, payment.id)
        row = ctx.get(PAYMENTS_COUNTED, key)
        if progress.received.includes(payment.id, row):
            if row is not None and row.differs(payment):
                ctx.count(PAYMENT_DIFFERS)
            ctx.put(PAYMENTS_COUNTED, key, row or progress.received.row(payment))
            self._resend_fulfilment(payment.order_id, progress, ctx)
            return
        if payment.ccy != self.currency:
            ctx.count(OTHER_CURRENCY)
        received = progress.received.plus(payment, self.currency, at_least_once=self.at_least_once)
        ctx.put(PAYMENTS_COUNTED, key, received.row(payment))
        self._ship_if_ready(payment.order_id, progress.model_copy(update={"received": received}), ctx)

    def on_check_in(self, check_in: HomeCheckin, ctx: Context) -> None:
        """Accepts a check-in of a validated order, rejects one of a failed order, and queues any other.

        An outbox may deliver a check-in more than once; it counts once.
        """
        if not SEEN_CHECK_INS.is_new(ctx, check_in.event_id) and not self.at_least_once:
            return
        order_id = check_in.order_no
        progress = self._progress(order_id, ctx)
        known = CHECK_INS.find(ctx, order_id, check_in.event_id)
        if known is not None and known[1].reason is not None:
            _send_rejection(order_id, known[1], ctx)
        elif progress.state in _ACCEPTED:
            self._resend_fulfilment(order_id, progress, ctx)
            self._ship_if_ready(order_id, progress.model_copy(update={"checked_in": True}), ctx)
        elif progress.state is OrderState.FAILED:
            _send_rejection(order_id, WaitingCheckin(event_id=check_in.event_id, reason=_ORDER_FAILED), ctx)
        elif CHECK_INS.append(ctx, order_id, check_in.event_id, WaitingCheckin(event_id=check_in.event_id)):
            if progress.state is None and not progress.waiting:
                ctx.schedule(_ORDER + order_id, ctx.now + self.patience)
            ctx.put(PROGRESS, order_id, progress.model_copy(update={"waiting": progress.waiting + 1}))

    def on_timer(self, timer: str, ctx: Context) -> None:
        """Resolves check-ins whose time is up or whose slice is due, or deletes expired rows."""
        if timer.startswith(_ORDER):
            order_id = timer.removeprefix(_ORDER)
            if self._progress(order_id, ctx).state is None:
                self._resolve_check_ins(order_id, 0, ctx)
        elif timer.startswith(_RESOLVE):
            number, _, order_id = timer.removeprefix(_RESOLVE).partition("/")
            self._resolve_check_ins(order_id, int(number), ctx)
        elif timer.startswith(_PURGE):
            self._purge_resolved(timer.removeprefix(_PURGE), ctx)
        else:
            SEEN_CHECK_INS.expire(timer, ctx)

    def _ship_if_ready(self, order_id: str, progress: Progress, ctx: Context) -> None:
        due = not progress.fulfilled and progress.state is OrderState.VALIDATED
        if due and not missing(progress, self.needs, self.currency):
            progress = progress.model_copy(update={"fulfilled": True})
            ctx.send(FULFILMENTS, Fulfilled(order_id=order_id))
        ctx.put(PROGRESS, order_id, progress)

    def _resolve_check_ins(self, order_id: str, begin: int, ctx: Context) -> None:
        """Accepts or rejects a slice of the queued check-ins from number `begin` on; schedules the next.

        Each slice has a timer of its own. At least once, a timer is cancelled only after the slice's output is durable.
        """
        numbers = CHECK_INS.numbers(ctx, order_id)
        progress = ctx.get(PROGRESS, order_id) or _EMPTY
        if not numbers or (progress.state is OrderState.CREATED and not self.at_least_once):
            return  # none queued, or the order is undecided
        begin = max(begin, numbers.start)
        end, answered = min(begin + SLICE, numbers.stop), 0
        for number in range(begin, end):
            answered += self._resolve_check_in(order_id, number, progress.state, ctx)
        if begin == numbers.start:
            CHECK_INS.advance(ctx, order_id, end)
        if end < numbers.stop:
            ctx.schedule(f"{_RESOLVE}{end}/{order_id}", ctx.now)
        if self.at_least_once and progress.state is not OrderState.CREATED:
            ctx.schedule(_PURGE + order_id, ctx.now + TTL)
        _put_or_delete(order_id, progress.model_copy(update={"waiting": max(progress.waiting - answered, 0)}), ctx)

    def _resolve_check_in(self, order_id: str, number: int, state: OrderState | None, ctx: Context) -> bool:
        """Accepts or rejects one queued check-in. Returns whether it is resolved now for the first time."""
        waiting = CHECK_INS.get(ctx, order_id, number)
        if waiting is None:
            return False
        if waiting.reason is not None:
            _send_rejection(order_id, waiting, ctx)
            return False
        if state is OrderState.CREATED:
            return False
        if state in _ACCEPTED:
            if not self.at_least_once:  # at least once, the row of the order may not be durable yet
                CHECK_INS.remove(ctx, order_id, number)
            return True
        reason = _ORDER_FAILED if state is OrderState.FAILED else _ORDER_UNKNOWN
        rejected = waiting.model_copy(update={"reason": reason})
        _send_rejection(order_id, rejected, ctx)
        if self.at_least_once:
            CHECK_INS.replace(ctx, order_id, number, rejected)
        else:
            CHECK_INS.remove(ctx, order_id, number)
        return True

    def _purge_resolved(self, order_id: str, ctx: Context) -> None:
        """Deletes a slice of the resolved check-ins that were kept for repetition."""
        numbers, progress = CHECK_INS.numbers(ctx, order_id), ctx.get(PROGRESS, order_id)
        accepted = progress is not None and progress.state in _ACCEPTED
        for number in numbers[:SLICE]:
            waiting = CHECK_INS.get(ctx, order_id, number)
            if waiting is not None and waiting.reason is None and not accepted:
                break
            CHECK_INS.remove(ctx, order_id, number)
            CHECK_INS.advance(ctx, order_id, number + 1)
        else:
            if len(numbers) > SLICE:
                ctx.schedule(_PURGE + order_id, ctx.now)

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
            received = received.plus(payment, self.currency, at_least_once=self.at_least_once)
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

    def _resend(self, order: Order, progress: Progress, ctx: Context) -> None:
        """At least once: sends the output for an order again when its current or previous state is replayed."""
        if self.at_least_once and order.state in {progress.state, OrderState.VALIDATED}:
            self._resolve_check_ins(order.id, 0, ctx)
            self._resend_fulfilment(order.id, progress, ctx)

    def _resend_fulfilment(self, order_id: str, progress: Progress, ctx: Context) -> None:
        if self.at_least_once and progress.fulfilled:
            ctx.send(FULFILMENTS, Fulfilled(order_id=order_id))


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


def _send_rejection(order_id: str, rejected: WaitingCheckin, ctx: Context) -> None:
    reason = rejected.reason or _ORDER_UNKNOWN
    ctx.send(CHECKIN_REJECTIONS, CheckinRejected(event_id=rejected.event_id, order_no=order_id, reason=reason))
