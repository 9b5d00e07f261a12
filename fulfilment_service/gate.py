"""The gate: several events, in whatever order they come, all of which must have happened. Pure."""

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal

from fulfilment_service.state import PROGRESS, SEEN, Progress
from runtime.memory import KEPT
from runtime.service import Context
from schemas.messages import CheckinRejected, Fulfilled, HomeCheckin, Need, Order, OrderState, Payment
from schemas.topics import CHECKIN_REJECTIONS, FULFILMENTS, PAYMENTS, repartition

PAYMENTS_BY_ORDER = repartition("fulfilment", PAYMENTS, "order", lambda p: p.order_id)

_NOTHING = Progress()
_HAS_FAILED, _NOT_KNOWN = "the order has failed", "there is no such order"
_ORDER, _REJECTED = "order/", "rejected/"
"""What timers start with: of orders that are waited for, of rejections that are kept. Others are numbers of hours."""


def route(payment: Payment, ctx: Context) -> None:
    """Takes a payment to where its order is."""
    ctx.send(PAYMENTS_BY_ORDER, payment)


def missing(progress: Progress, needs: tuple[Need, ...]) -> tuple[Need, ...]:
    """Which of the needed events have not happened yet."""
    happened = {
        Need.VALIDATED: progress.state in {OrderState.VALIDATED, OrderState.SHIPPED},
        Need.PAID: progress.value is not None and sum(progress.paid.values(), Decimal()) >= progress.value,
        Need.CHECKED_IN: progress.checked_in,
    }
    return tuple(need for need in needs if not happened[need])


class Gate:
    """Announces an order as fulfilled once `needs` are met.

    Arguments:
        needs: what has to happen, each once.
        patience: how long a check-in waits for its order to become known.
        repeats: whether what was seen before is answered again: at least once, a crash may have come between the row
            that tells of an answer and the answer. Then the row keeps what was rejected, too.
    """

    def __init__(self, needs: tuple[Need, ...], patience: timedelta, *, repeats: bool = False) -> None:
        self.needs = needs
        self.patience = patience
        self.repeats = repeats

    def on_order(self, order: Order, ctx: Context) -> None:
        """An order and the state it has come to. Check-ins that waited for it are answered for."""
        progress = ctx.get(PROGRESS, order.id) or _NOTHING
        known = progress.state
        if known is not None and (known.decided or not order.state.decided) and order.state is not OrderState.SHIPPED:
            self._repeat(order, progress, ctx)
            return  # seen before, or overtaken
        progress = progress.model_copy(update={"state": order.state, "value": order.value})
        ctx.wake(_ORDER + order.id, None)
        if order.state is OrderState.SHIPPED:
            ctx.put(PROGRESS, order.id, progress)  # it is the answer to what was announced here
            return
        _send(progress.rejected, ctx)  # by a wish that is withdrawn now
        if order.state is OrderState.FAILED:
            progress = self._reject(progress, _HAS_FAILED, ctx)
        elif order.state.decided and progress.check_ins:
            progress = progress.model_copy(update={"check_ins": (), "checked_in": True})
        self._weigh(order.id, progress, ctx)

    def on_payment(self, payment: Payment, ctx: Context) -> None:
        """A payment: of several, the sum counts."""
        progress = ctx.get(PROGRESS, payment.order_id) or _NOTHING
        if payment.id not in progress.paid:
            paid = {**progress.paid, payment.id: payment.amount}
            self._weigh(payment.order_id, progress.model_copy(update={"paid": paid}), ctx)
        else:
            self._announce_again(payment.order_id, progress, ctx)

    def on_check_in(self, check_in: HomeCheckin, ctx: Context) -> None:
        """A check-in: taken if its order is on its way, rejected if it failed, kept as long as nobody can tell.

        It comes from an outbox, more than once perhaps: it counts once.
        """
        if not SEEN.first(ctx, check_in.event_id) and not self.repeats:
            return
        order_id = check_in.order_no
        progress = ctx.get(PROGRESS, order_id) or _NOTHING
        rejected = [r for r in progress.rejected if r.event_id == check_in.event_id]
        if rejected:
            _send(rejected, ctx)
        elif progress.state in {OrderState.VALIDATED, OrderState.SHIPPED}:
            self._announce_again(order_id, progress, ctx)
            self._weigh(order_id, progress.model_copy(update={"checked_in": True}), ctx)
        elif progress.state is OrderState.FAILED:
            _send([_rejection(check_in, _HAS_FAILED)], ctx)
        elif check_in.event_id not in {c.event_id for c in progress.check_ins}:
            if progress.state is None and not progress.check_ins:
                ctx.wake(_ORDER + order_id, ctx.now + self.patience)
            ctx.put(PROGRESS, order_id, progress.model_copy(update={"check_ins": (*progress.check_ins, check_in)}))

    def on_wake(self, timer: str, ctx: Context) -> None:
        """Check-ins have waited long enough for their order; or what was kept for a while is to be forgotten."""
        if timer.startswith(_ORDER):
            order_id = timer.removeprefix(_ORDER)
            progress = ctx.get(PROGRESS, order_id)
            if progress is not None and progress.state is None:
                _send(progress.rejected, ctx)  # woken again, after a crash
                progress = self._reject(progress, _NOT_KNOWN, ctx)
                if progress.rejected:
                    ctx.wake(_REJECTED + order_id, ctx.now + KEPT)
                _keep(order_id, progress, ctx)
        elif timer.startswith(_REJECTED):
            order_id = timer.removeprefix(_REJECTED)
            progress = ctx.get(PROGRESS, order_id) or _NOTHING
            _keep(order_id, progress.model_copy(update={"rejected": ()}), ctx)
        else:
            SEEN.forget(timer, ctx)

    def _weigh(self, order_id: str, progress: Progress, ctx: Context) -> None:
        if not progress.fulfilled and progress.state is OrderState.VALIDATED and not missing(progress, self.needs):
            progress = progress.model_copy(update={"fulfilled": True})
            ctx.send(FULFILMENTS, Fulfilled(order_id=order_id))
        ctx.put(PROGRESS, order_id, progress)

    def _reject(self, progress: Progress, reason: str, ctx: Context) -> Progress:
        rejected = [_rejection(check_in, reason) for check_in in progress.check_ins]
        _send(rejected, ctx)
        kept = (*progress.rejected, *rejected) if self.repeats else ()
        return progress.model_copy(update={"check_ins": (), "rejected": kept})

    def _repeat(self, order: Order, progress: Progress, ctx: Context) -> None:
        """An order is seen again in the state it has come to, or in the one before."""
        if self.repeats and order.state in {progress.state, OrderState.VALIDATED}:
            _send(progress.rejected, ctx)
            self._announce_again(order.id, progress, ctx)

    def _announce_again(self, order_id: str, progress: Progress, ctx: Context) -> None:
        if self.repeats and progress.fulfilled:
            ctx.send(FULFILMENTS, Fulfilled(order_id=order_id))


def _keep(order_id: str, progress: Progress, ctx: Context) -> None:
    if progress == _NOTHING:
        ctx.delete(PROGRESS, order_id)
    else:
        ctx.put(PROGRESS, order_id, progress)


def _rejection(check_in: HomeCheckin, reason: str) -> CheckinRejected:
    return CheckinRejected(event_id=check_in.event_id, order_no=check_in.order_no, reason=reason)


def _send(rejections: Iterable[CheckinRejected], ctx: Context) -> None:
    for rejection in rejections:
        ctx.send(CHECKIN_REJECTIONS, rejection)
