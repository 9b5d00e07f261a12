"""Aggregator: decides each order from its verdicts.

Of conflicting messages the first in the log wins. A decision is final.
"""

from datetime import timedelta

from orders_service.state import ORDERS_VIEW, OrderView
from runtime.model.service import Context, Timer
from schemas.api import Verdict
from schemas.messages import CheckType, Fulfilled, Order, OrderState, OrderValidation, ValidationResult
from schemas.topics import ORDERS

ORPHANS_KEPT = timedelta(days=1)
"""Time that verdicts are stored without their order.

Long, because after an outage verdicts may be read long before their orders.
"""

_UNKNOWN = OrderView()
_DECIDED_HERE = frozenset({OrderState.VALIDATED, OrderState.FAILED})


class OrderAggregator:
    """Aggregates the verdicts on an order into VALIDATED or FAILED.

    Arguments:
        required: checks that decide. Verdicts of other checks are recorded; they neither delay nor fail an order.
        deadline: time for all required verdicts, from when the order is first read. Not from its creation: it may have
            waited in the log during an outage.
    """

    def __init__(self, required: tuple[CheckType, ...], deadline: timedelta) -> None:
        self.required = required
        self.deadline = deadline
        self.timer = Timer("deadline", self.on_deadline, prefix="")
        """By order id: fails an order without verdicts, or deletes verdicts without an order."""

    def on_order(self, order: Order, ctx: Context) -> None:
        """Processes an order: posted, decided by this service, shipped, or a replay of one of these."""
        view = ctx.get(ORDERS_VIEW, order.id) or _UNKNOWN
        known = view.order
        if known is None and not order.state.decided:
            ctx.schedule(self.timer, order.id, ctx.now + self.deadline)
            self._decide_if_complete(view.model_copy(update={"order": order}), order, ctx)
        elif known is None or _follows(order, known):
            # The decision was read from the log, so it has been sent already.
            ctx.schedule(self.timer, order.id, None)
            ctx.put(ORDERS_VIEW, order.id, view.model_copy(update={"order": order}))

    def on_verdict(self, verdict: OrderValidation, ctx: Context) -> None:
        """Processes a verdict. The first verdict of each check counts, while the order is undecided."""
        view = ctx.get(ORDERS_VIEW, verdict.order_id) or _UNKNOWN
        if view.decided or view.has(verdict.check_type):
            self._count_late(view, verdict, ctx)
            return
        recorded = Verdict(
            check_type=verdict.check_type,
            validation_result=verdict.validation_result,
            reason=verdict.reason,
        )
        view = view.model_copy(update={"verdicts": (*view.verdicts, recorded)})
        if view.order is None:
            ctx.schedule(self.timer, verdict.order_id, ctx.now + ORPHANS_KEPT)
            ctx.put(ORDERS_VIEW, verdict.order_id, view)
        else:
            self._decide_if_complete(view, view.order, ctx)

    def on_fulfilled(self, fulfilled: Fulfilled, ctx: Context) -> None:
        """Ships a validated order whose prerequisites are met."""
        view = ctx.get(ORDERS_VIEW, fulfilled.order_id)
        if view is None or view.order is None:
            return
        if view.order.state is OrderState.VALIDATED:
            shipped = view.order.model_copy(update={"state": OrderState.SHIPPED})
            ctx.put(ORDERS_VIEW, shipped.id, view.model_copy(update={"order": shipped}))
            ctx.send(ORDERS, shipped)

    def on_deadline(self, order_id: str, ctx: Context) -> None:
        """Fails an order at its deadline, or deletes verdicts whose order never arrived."""
        view = ctx.get(ORDERS_VIEW, order_id)
        if view is None or view.decided:
            return
        if view.order is None:
            ctx.delete(ORDERS_VIEW, order_id)
            return
        seconds = self.deadline.total_seconds()
        ctx.count("deadline missed")
        missing = [f"{check}: no verdict within {seconds:g} s" for check in self.required if not view.has(check)]
        self._decide(view, view.order, OrderState.FAILED, missing, ctx)

    def _count_late(self, view: OrderView, verdict: OrderValidation, ctx: Context) -> None:
        ctx.put(ORDERS_VIEW, verdict.order_id, view.model_copy(update={"late": view.late + 1}))
        ctx.count("late verdict")

    def _decide_if_complete(self, view: OrderView, order: Order, ctx: Context) -> None:
        """Decides the order if its verdicts suffice."""
        binding = [v for v in view.verdicts if v.check_type in self.required]
        failures = [v for v in binding if v.validation_result is not ValidationResult.PASS]
        if failures:
            self._decide(view, order, OrderState.FAILED, [_reason(v) for v in failures], ctx)
        elif len(binding) == len(self.required):
            self._decide(view, order, OrderState.VALIDATED, [], ctx)
        else:
            ctx.put(ORDERS_VIEW, order.id, view)

    def _decide(self, view: OrderView, order: Order, state: OrderState, reasons: list[str], ctx: Context) -> None:
        decided = order.model_copy(update={"state": state, "reasons": tuple(reasons) or None})
        ctx.count(state.lower())
        ctx.schedule(self.timer, order.id, None)
        ctx.put(ORDERS_VIEW, order.id, view.model_copy(update={"order": decided, "reasons": tuple(reasons)}))
        ctx.send(ORDERS, decided)


def _follows(order: Order, known: Order) -> bool:
    """Whether a state read from `orders` is a valid transition from the known one, for the same content."""
    if known.state is OrderState.CREATED:
        allowed = order.state in _DECIDED_HERE
    else:
        allowed = known.state is OrderState.VALIDATED and order.state is OrderState.SHIPPED
    return allowed and order.same_content(known)


def _reason(verdict: Verdict) -> str:
    return f"{verdict.check_type}: {verdict.reason or verdict.validation_result}"
