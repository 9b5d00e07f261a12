"""`GET /v1/orders/{id}/events`: states and verdicts of an order as server-sent events, until it has its final state."""

from collections.abc import Iterator, Sequence

from orders_service.queries import unknown_order
from orders_service.state import ORDERS_VIEW, OrderView
from runtime.http.event_stream import ServerSentEvent
from runtime.http.inputs import ORDER_ID
from runtime.http.row_events import row_events
from schemas.messages import Order, OrderState, ValidationResult
from schemas.wire import Message


def events_of(view: OrderView) -> Iterator[ServerSentEvent]:
    """The events of an order so far, always in the same order and under the same ids.

    They follow from the row alone, so any worker continues a stream: CREATED, the verdicts by arrival, the decision,
    the end. An id has the attempt to decide the order and a number.
    """
    order = view.order
    if order is None:
        return  # only verdicts have arrived
    parts: list[tuple[str, Message]] = [("state", _in_state(order, OrderState.CREATED))]
    parts += [("verdict", verdict) for verdict in view.verdicts]
    parts += [("state", _in_state(order, state)) for state in _later_states(view, order)]
    for number, (name, message) in enumerate(parts, start=1):
        yield ServerSentEvent(f"{view.attempt}-{number}", name, message)


def _later_states(view: OrderView, order: Order) -> Sequence[OrderState]:
    """The states after CREATED that the order has been in."""
    state = order.state
    if state is OrderState.CREATED:
        return ()
    passed = {v.check_type for v in view.verdicts if v.validation_result is ValidationResult.PASS}
    was_validated = {*(view.required or ())} <= passed
    if state is OrderState.SHIPPED or (state is OrderState.CANCELLED and was_validated):
        return OrderState.VALIDATED, state
    return (state,)


def _in_state(order: Order, state: OrderState) -> Order:
    return order if order.state is state else order.model_copy(update={"state": state, "reasons": None})


EVENTS = row_events(
    "/v1/orders/{id}/events",
    ORDERS_VIEW,
    ORDER_ID,
    events_of,
    unknown_order,
    ready=lambda view: view.order is not None,
    final=lambda view: view.order is not None and view.order.state.final,
    name="streamOrder",
    summary="Follow an order: states and verdicts as server-sent events, until it has its final state",
    tag="orders",
    description="Events `state` (the order) and `verdict`. Ends with FAILED, SHIPPED or CANCELLED. A stream that is "
    "interrupted continues behind `Last-Event-ID`, from any worker.",
)
