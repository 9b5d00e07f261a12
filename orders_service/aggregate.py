"""Gathering: how verdicts become the fate of an order. First in the log wins, and what is decided stays decided."""

from datetime import timedelta

from orders_service.state import ORDERS_VIEW, OrderView
from runtime.model.service import Context
from schemas.api import Verdict
from schemas.messages import CheckType, Fulfilled, Order, OrderState, OrderValidation, ValidationResult
from schemas.topics import ORDERS

ORPHANS_KEPT = timedelta(days=1)
"""How long verdicts wait for their order. Generous: after an outage verdicts may be read long before their orders."""

_UNKNOWN = OrderView()
_ANNOUNCED_HERE = frozenset({OrderState.VALIDATED, OrderState.FAILED})


class OrderAggregator:
    """The order aggregate.

    Arguments:
        required: checks that decide. Verdicts of others are recorded, but neither waited for nor able to fail an order.
        deadline: how long after an order was first seen (not made: it may have queued during an outage) all of the
            required checks must have spoken.
        repeats: whether a decision is announced again when what decided it is seen again. Where a batch is one
            transaction that would only make duplicates; at least once, a crash may have kept the first one back.
    """

    def __init__(self, required: tuple[CheckType, ...], deadline: timedelta, *, repeats: bool = False) -> None:
        self.required = required
        self.deadline = deadline
        self.repeats = repeats

    def on_order(self, order: Order, ctx: Context) -> None:
        """An order as posted, as announced by this service itself, as shipped, or any of these replayed."""
        view = ctx.get(ORDERS_VIEW, order.id) or _UNKNOWN
        known = view.order
        if known is None and not order.state.decided:
            ctx.schedule(order.id, ctx.now + self.deadline)
            self._weigh(view.model_copy(update={"order": order}), order, ctx)
        elif known is None or _follows(order, known):
            # Decided, but not by this state: it comes from the log, where it has been announced.
            ctx.schedule(order.id, None)
            ctx.put(ORDERS_VIEW, order.id, view.model_copy(update={"order": order}))
        elif not order.state.decided and order.same_content(known):
            self._repeat(view, ctx)  # the order itself may have been what decided, its verdicts being there before it

    def on_verdict(self, verdict: OrderValidation, ctx: Context) -> None:
        """A verdict: the first of its check counts, as long as the order is open."""
        view = ctx.get(ORDERS_VIEW, verdict.order_id) or _UNKNOWN
        if view.decided or view.has(verdict.check_type):
            self._late(view, verdict, ctx)
            return
        heard = Verdict(
            check_type=verdict.check_type,
            validation_result=verdict.validation_result,
            reason=verdict.reason,
        )
        view = view.model_copy(update={"verdicts": (*view.verdicts, heard)})
        if view.order is None:
            ctx.schedule(verdict.order_id, ctx.now + ORPHANS_KEPT)
            ctx.put(ORDERS_VIEW, verdict.order_id, view)
        else:
            self._weigh(view, view.order, ctx)

    def on_fulfilled(self, fulfilled: Fulfilled, ctx: Context) -> None:
        """All has happened that has to: a validated order is shipped."""
        view = ctx.get(ORDERS_VIEW, fulfilled.order_id)
        if view is None or view.order is None:
            return
        if view.order.state is OrderState.VALIDATED:
            shipped = view.order.model_copy(update={"state": OrderState.SHIPPED})
            ctx.put(ORDERS_VIEW, shipped.id, view.model_copy(update={"order": shipped}))
            ctx.send(ORDERS, shipped)
        elif self.repeats and view.order.state is OrderState.SHIPPED:
            ctx.send(ORDERS, view.order)

    def on_timer(self, order_id: str, ctx: Context) -> None:
        """Time is up: for the missing checks of an order, or for verdicts whose order never came."""
        view = ctx.get(ORDERS_VIEW, order_id)
        if view is None:
            return
        if view.decided:
            self._repeat(view, ctx)  # woken again, after a crash
            return
        if view.order is None:
            ctx.delete(ORDERS_VIEW, order_id)
            return
        seconds = self.deadline.total_seconds()
        ctx.count("deadline missed")
        missing = [f"{check}: no verdict within {seconds:g} s" for check in self.required if not view.has(check)]
        self._decide(view, view.order, OrderState.FAILED, missing, ctx)

    def _late(self, view: OrderView, verdict: OrderValidation, ctx: Context) -> None:
        ctx.put(ORDERS_VIEW, verdict.order_id, view.model_copy(update={"late": view.late + 1}))
        ctx.count("late verdict")
        decisive = bool(view.verdicts) and view.verdicts[-1].check_type == verdict.check_type
        if decisive:
            self._repeat(view, ctx)

    def _repeat(self, view: OrderView, ctx: Context) -> None:
        """At least once: announces what the order has come to, and what it came to before that."""
        order = view.order
        if not self.repeats or order is None or not order.state.decided:
            return
        if order.state is OrderState.SHIPPED:
            ctx.send(ORDERS, order.model_copy(update={"state": OrderState.VALIDATED}))
        ctx.send(ORDERS, order)

    def _weigh(self, view: OrderView, order: Order, ctx: Context) -> None:
        """Decides the order if its verdicts suffice for that."""
        binding = [v for v in view.verdicts if v.check_type in self.required]
        against = [v for v in binding if v.validation_result is not ValidationResult.PASS]
        if against:
            self._decide(view, order, OrderState.FAILED, [_reason(v) for v in against], ctx)
        elif len(binding) == len(self.required):
            self._decide(view, order, OrderState.VALIDATED, [], ctx)
        else:
            ctx.put(ORDERS_VIEW, order.id, view)

    def _decide(self, view: OrderView, order: Order, state: OrderState, reasons: list[str], ctx: Context) -> None:
        decided = order.model_copy(update={"state": state, "reasons": tuple(reasons) or None})
        ctx.count(state.lower())
        ctx.schedule(order.id, None)
        ctx.put(ORDERS_VIEW, order.id, view.model_copy(update={"order": decided, "reasons": tuple(reasons)}))
        ctx.send(ORDERS, decided)


def _follows(order: Order, known: Order) -> bool:
    """Whether a state read from `orders` is the next in the life of what is known. Never back, never another order."""
    if known.state is OrderState.CREATED:
        allowed = order.state in _ANNOUNCED_HERE
    else:
        allowed = known.state is OrderState.VALIDATED and order.state is OrderState.SHIPPED
    return allowed and order.same_content(known)


def _reason(verdict: Verdict) -> str:
    return f"{verdict.check_type}: {verdict.reason or verdict.validation_result}"
