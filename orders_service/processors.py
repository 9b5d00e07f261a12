"""Aggregator: decides each order from its verdicts, and cancels it. Pure.

Of conflicting messages the first in the log wins. A decision is final, but a validated order can be cancelled until it
is shipped. Only the aggregator changes the state of an order, so whatever races to it ends in one outcome.
"""

from datetime import timedelta

from orders_service.state import CHECKS, ORDERS_VIEW, REQUIRED, OrderView
from runtime.model.service import Context, Timer
from runtime.state.queues import SLICE
from schemas.api import Verdict
from schemas.messages import (
    Cancellation,
    CheckType,
    Fulfilled,
    Order,
    OrderState,
    OrderValidation,
    RequiredChecks,
    ValidationResult,
)
from schemas.topics import ORDERS

ORPHANS_KEPT = timedelta(days=1)
"""Time that verdicts are stored without their order.

Long, because after an outage verdicts may be read long before their orders.
"""

OPENED = "created"
LATE_VERDICT = "late verdict"
DEADLINE_MISSED = "deadline missed"
OUTDATED_CHECKS = "outdated required checks"
_STATES = tuple(state.lower() for state in OrderState if state is not OrderState.CREATED)
EVENTS = (OPENED, *_STATES, LATE_VERDICT, DEADLINE_MISSED, OUTDATED_CHECKS)
"""Counted events. `created` counts orders, and later attempts to decide one, that begin to wait for verdicts."""

FULFILLED_TO_SHIPPED = "fulfilled to shipped"
FIRST_VERDICT = "first verdict"
STAGES = (FULFILLED_TO_SHIPPED, *(f"posted to {stage}" for stage in (FIRST_VERDICT, *_STATES)))
"""Observed stages."""

_UNKNOWN = OrderView()
_NEXT_STATES = {
    OrderState.CREATED: {OrderState.VALIDATED, OrderState.FAILED, OrderState.CANCELLED},
    OrderState.VALIDATED: {OrderState.SHIPPED, OrderState.CANCELLED},
}


class OrderAggregator:
    """Aggregates the verdicts on an order into VALIDATED or FAILED.

    Arguments:
        required: checks that decide, in partitions without a record in `required-checks`. Verdicts of other checks are
            recorded; they neither delay nor fail an order.
        deadline: time for all required verdicts, from when the order is first read. Not from its creation: it may have
            waited in the log during an outage.
    """

    def __init__(self, required: tuple[CheckType, ...], deadline: timedelta) -> None:
        self.required = required
        self.deadline = deadline
        self._deadline = Timer("deadline", self._on_deadline, prefix="")
        self._recheck = Timer("recheck", self._on_recheck, inherits=False)
        self.timers = (self._deadline, self._recheck)

    def on_order(self, order: Order, ctx: Context) -> None:
        """Processes an order: posted, decided by this service, shipped, cancelled, or a replay of one of these.

        A FAILED order is opened again by a CREATED one of a later attempt.
        """
        view = ctx.get(ORDERS_VIEW, order.id) or _UNKNOWN
        known = view.order
        if order.state is OrderState.CREATED and (known is None or _reopens(order, known)):
            self._open(view, order, ctx)
        elif known is None or _follows(order, known):
            # The decision was read from the log, so it has been sent already.
            ctx.schedule(self._deadline, order.id, None)
            ctx.put(ORDERS_VIEW, order.id, view.model_copy(update={"order": order}))

    def _open(self, view: OrderView, order: Order, ctx: Context) -> None:
        """Waits for the verdicts on a new order, or on a new attempt, and counts those that have arrived."""
        ctx.count(OPENED)
        ctx.schedule(self._deadline, order.id, ctx.now + self.deadline)
        now = self._in_force(ctx)
        required = self.required if now is None else now
        verdicts = view.verdicts if order.attempt_number == view.attempt else ()
        of_attempt = [v for v in view.ahead if v.attempt_number == order.attempt_number]
        verdicts = (*verdicts, *map(_recorded, of_attempt))
        ahead = tuple(v for v in view.ahead if v.attempt_number > order.attempt_number)
        fields = {"order": order, "required": required, "reasons": (), "verdicts": verdicts, "ahead": ahead}
        self._decide_if_complete(view.model_copy(update=fields), order, ctx)

    def on_verdict(self, verdict: OrderValidation, ctx: Context) -> None:
        """Processes a verdict. The first verdict of each check and attempt counts, while the order is undecided."""
        view = ctx.get(ORDERS_VIEW, verdict.order_id) or _UNKNOWN
        if verdict.attempt_number > view.attempt:
            self._keep_ahead(verdict, view, ctx)
            return
        if verdict.attempt_number < view.attempt or view.decided or view.has(verdict.check_type):
            _count_late(verdict, view, ctx)
            return
        if view.order is not None and not view.verdicts:
            _observe(FIRST_VERDICT, view.order, ctx)
        view = view.model_copy(update={"verdicts": (*view.verdicts, _recorded(verdict))})
        if view.order is None:
            ctx.schedule(self._deadline, verdict.order_id, ctx.now + ORPHANS_KEPT)
            ctx.put(ORDERS_VIEW, verdict.order_id, view)
        else:
            self._decide_if_complete(view, view.order, ctx)

    def _keep_ahead(self, verdict: OrderValidation, view: OrderView, ctx: Context) -> None:
        """Keeps a verdict until the order of its attempt arrives. Only those of the latest attempt: bounds the row."""
        latest = max((v.attempt_number for v in view.ahead), default=0)
        kept = view.ahead if verdict.attempt_number == latest else ()
        if verdict.attempt_number < latest or any(v.check_type == verdict.check_type for v in kept):
            _count_late(verdict, view, ctx)
            return
        if view.order is None:
            ctx.schedule(self._deadline, verdict.order_id, ctx.now + ORPHANS_KEPT)
        ctx.put(ORDERS_VIEW, verdict.order_id, view.model_copy(update={"ahead": (*kept, verdict)}))

    def on_fulfilled(self, fulfilled: Fulfilled, ctx: Context) -> None:
        """Ships a validated order whose prerequisites are met. A cancelled order stays cancelled."""
        view = ctx.get(ORDERS_VIEW, fulfilled.order_id)
        if view is not None and view.order is not None and view.order.state is OrderState.VALIDATED:
            ctx.observe(FULFILLED_TO_SHIPPED, (ctx.now - ctx.time).total_seconds())
            self._move(view, view.order, OrderState.SHIPPED, view.reasons, ctx)

    def on_cancellation(self, cancellation: Cancellation, ctx: Context) -> None:
        """Cancels an order on behalf of another service."""
        self.cancel(cancellation.order_id, cancellation.reason, ctx)

    def cancel(self, order_id: str, reason: str, ctx: Context) -> Order | None:
        """Cancels an order that has neither failed nor been shipped. Returns its state; `None` if it is unknown."""
        view = ctx.get(ORDERS_VIEW, order_id)
        if view is None or view.order is None:
            return None
        if not view.order.state.cancellable:
            return view.order
        return self._move(view, view.order, OrderState.CANCELLED, (reason,), ctx)

    def on_required_checks(self, required: RequiredChecks, ctx: Context) -> None:
        """Stores the required checks. Orders that wait for a check that was removed are decided without it."""
        known = ctx.get(CHECKS, REQUIRED)
        if known is not None and required.version < known.version:
            ctx.count(OUTDATED_CHECKS)  # written back, from a dead letter for example
            return
        ctx.put(CHECKS, REQUIRED, required)
        for change in sorted({max(s.since, ctx.now) for s in required.sets}):
            ctx.schedule(self._recheck, f"{change.isoformat()}/", change)

    def _on_recheck(self, change_and_order: str, ctx: Context) -> None:
        """Decides a slice of the undecided orders anew, those behind an id, and schedules the next slice."""
        change, _, after = change_and_order.partition("/")
        order_ids = ctx.scheduled(self._deadline, after, SLICE)
        for order_id in order_ids:
            view = ctx.get(ORDERS_VIEW, order_id)
            if view is not None and view.order is not None and not view.decided:
                self._decide_if_complete(view, view.order, ctx)
        if len(order_ids) == SLICE:
            ctx.schedule(self._recheck, f"{change}/{order_ids[-1]}", ctx.now)

    def _on_deadline(self, order_id: str, ctx: Context) -> None:
        """Fails an order at its deadline, or deletes verdicts whose order never arrived."""
        view = ctx.get(ORDERS_VIEW, order_id)
        if view is None or view.decided:
            return
        order = view.order
        if order is None:
            ctx.delete(ORDERS_VIEW, order_id)
            return
        required = self._required(view, ctx)
        if not view.missing(required):  # a check was removed just now
            self._decide_if_complete(view, order, ctx)
            return
        seconds = self.deadline.total_seconds()
        ctx.count(DEADLINE_MISSED)
        missing = tuple(f"{check}: no verdict within {seconds:g} s" for check in view.missing(required))
        view = view.model_copy(update={"required": required})
        self._move(view, order, OrderState.FAILED, missing, ctx)

    def _in_force(self, ctx: Context) -> tuple[CheckType, ...] | None:
        """The required checks now, by the topic. `None` if the topic says nothing."""
        row = ctx.get(CHECKS, REQUIRED)
        return row.at(ctx.now) if row is not None else None

    def _required(self, view: OrderView, ctx: Context) -> tuple[CheckType, ...]:
        """The checks that decide an order: those in force when it was first seen, without those removed since."""
        first = self.required if view.required is None else view.required
        now = self._in_force(ctx)
        return first if now is None else tuple(check for check in first if check in now)

    def _decide_if_complete(self, view: OrderView, order: Order, ctx: Context) -> None:
        """Decides the order if its verdicts suffice."""
        required = self._required(view, ctx)
        if view.required != required:
            view = view.model_copy(update={"required": required})
        binding = [v for v in view.verdicts if v.check_type in required]
        failures = [v for v in binding if v.validation_result is not ValidationResult.PASS]
        if failures:
            self._move(view, order, OrderState.FAILED, tuple(_reason(v) for v in failures), ctx)
        elif len(binding) == len(required):
            self._move(view, order, OrderState.VALIDATED, (), ctx)
        else:
            ctx.put(ORDERS_VIEW, order.id, view)

    def _move(self, view: OrderView, order: Order, to: OrderState, reasons: tuple[str, ...], ctx: Context) -> Order:
        """Moves an order to another state, and publishes it."""
        moved = order.model_copy(update={"state": to, "reasons": reasons or None})
        ctx.count(to.lower())
        _observe(to.lower(), order, ctx)
        ctx.schedule(self._deadline, order.id, None)
        ctx.put(ORDERS_VIEW, order.id, view.model_copy(update={"order": moved, "reasons": reasons}))
        ctx.send(ORDERS, moved)
        return moved


def _follows(order: Order, known: Order) -> bool:
    """Whether a state read from `orders` is a valid transition from the known one, for the same content."""
    next_state = order.state in _NEXT_STATES.get(known.state, ()) and order.attempt_number == known.attempt_number
    return next_state and order.same_content(known)


def _reopens(order: Order, known: Order) -> bool:
    """Whether a CREATED order is a new attempt to decide a failed one."""
    later = order.attempt_number > known.attempt_number
    return known.state is OrderState.FAILED and later and order.same_content(known)


def _recorded(verdict: OrderValidation) -> Verdict:
    return Verdict(check_type=verdict.check_type, validation_result=verdict.validation_result, reason=verdict.reason)


def _count_late(verdict: OrderValidation, view: OrderView, ctx: Context) -> None:
    """Counts a verdict without effect."""
    ctx.put(ORDERS_VIEW, verdict.order_id, view.model_copy(update={"late": view.late + 1}))
    ctx.count(LATE_VERDICT)


def _observe(stage: str, order: Order, ctx: Context) -> None:
    """Observes how long after its POST an order has reached a stage, as of the poll of the batch."""
    ctx.observe(f"posted to {stage}", (ctx.now - order.created_at).total_seconds())


def _reason(verdict: Verdict) -> str:
    return f"{verdict.check_type}: {verdict.reason or verdict.validation_result}"
