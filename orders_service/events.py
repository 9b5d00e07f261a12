"""`GET /v1/orders/{id}/events`: states and verdicts of an order as server-sent events, until it has its final state."""

import re
from collections.abc import AsyncGenerator, Iterator, Sequence

from aiohttp import web

from orders_service.queries import unknown_order
from orders_service.state import ORDERS_VIEW, OrderView
from runtime.errors import KeyNotOwned
from runtime.hosting import Answer, Endpoint, Host
from runtime.http.event_stream import EVENT_STREAM, HEARTBEAT_S, LAST_EVENT_ID, ServerSentEvent, send_events
from runtime.http.inputs import ORDER_ID, deadline_of
from runtime.http.queries import wait_for_row
from runtime.http.routing import route_to_owner
from schemas.messages import Order, OrderState, ValidationResult
from schemas.wire import Message

_ID = re.compile(r"([0-9]{1,7})-([0-9]{1,7})")


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


def position(id_: str | None) -> tuple[int, int]:
    """Attempt and number in the id of an event; a text that is none stands before all events."""
    found = _ID.fullmatch(id_ or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)


def events_after(view: OrderView, after: tuple[int, int]) -> list[ServerSentEvent]:
    """The events behind one that a client has."""
    return [event for event in events_of(view) if position(event.id) > after]


async def stream_order(host: Host, request: web.Request) -> web.StreamResponse:
    """Waits until the order exists, and sends its events from the key owner until the final state."""
    order_id, deadline = ORDER_ID.of(request), deadline_of(request)
    after = position(request.headers.get(LAST_EVENT_ID.name))

    async def answer() -> web.StreamResponse:
        view = await wait_for_row(host, ORDERS_VIEW, order_id, deadline, lambda view: view.order is not None)
        if view is None or view.order is None:
            raise unknown_order(order_id)
        return await send_events(request, _events(host, order_id, after))

    return await route_to_owner(request, host, ORDERS_VIEW, order_id, deadline, answer, stream=True)


async def _events(host: Host, order_id: str, after: tuple[int, int]) -> AsyncGenerator[Sequence[ServerSentEvent], None]:
    """Yields events behind a position; nothing at a heartbeat. Ends when the partition moves or the worker stops."""
    with host.watch(ORDERS_VIEW, order_id) as watch:
        while not host.stopping:
            try:
                view = host.read(ORDERS_VIEW, order_id)
            except KeyNotOwned:
                return  # the client connects again, to the new owner
            if view is not None and (new := events_after(view, after)):
                after = position(new[-1].id)
                yield new
            if view is not None and view.order is not None and view.order.state.final:
                return
            if not await watch.wait(HEARTBEAT_S):
                yield ()


EVENTS = Endpoint(
    "GET",
    "/v1/orders/{id}/events",
    stream_order,
    name="streamOrder",
    summary="Follow an order: states and verdicts as server-sent events, until it has its final state",
    tag="orders",
    description="Events `state` (the order) and `verdict`. Ends with FAILED, SHIPPED or CANCELLED. A stream that is "
    "interrupted continues behind `Last-Event-ID`, from any worker.",
    parameters=(ORDER_ID, LAST_EVENT_ID),
    routed=True,
    answers={200: Answer("The events", media_type=EVENT_STREAM)},
)
