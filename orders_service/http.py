"""HTTP endpoints of the orders service: `POST /v1/orders`, and the queries of `queries.py`."""

from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from aiohttp import web

from orders_service.commands import place
from orders_service.events import EVENTS
from orders_service.processors import OrderAggregator
from orders_service.queries import QUERIES, unknown_order
from orders_service.state import ORDERS_VIEW, OrderView
from runtime.errors import KeyNotOwned
from runtime.hosting import Answer, Endpoint, FastCommand, FastResponse, Host, PreparedCommand, ResponseHeader
from runtime.http.answers import HttpProblem, answer, location
from runtime.http.inputs import ORDER_ID, Deadline, IdempotencyKey, deadline_of, message_of
from runtime.http.preferences import APPLIED, MAX_WAIT_S, Wait, WaitPreference
from runtime.http.queries import wait_for_row
from runtime.http.routing import route_to_owner
from schemas.api import NewOrder, OrderOutcome
from schemas.identifiers import new_order_id, order_id_for
from schemas.messages import Order, OrderState
from schemas.topics import ORDERS

PATH = "/v1/orders"

CANCELLED_BY_CLIENT = "cancelled by the client"
"""Reason of an order that was cancelled over HTTP."""

FRESH_IDS = 64
"""Ids generated at most to find one whose partition this worker owns.

With one of 16 partitions owned, 98 of 100 requests find one.
"""

_IDEMPOTENCY_KEY = IdempotencyKey(
    "For a body without an id: requests with the same key create one order. Printable text outside ASCII is accepted "
    "if encoded as UTF-8."
)
PREFER = WaitPreference(
    f"`wait=SECONDS`: answer with the outcome, once the order is decided; up to {MAX_WAIT_S} (RFC 7240)"
)
_LOCATION = (ResponseHeader("Location", "URL of the order"),)


async def post_order(host: Host, request: web.Request) -> web.StreamResponse:
    """Answers 201 once Kafka has the order, 200 if it existed, 409 if the id has another order.

    A client that prefers to wait gets the outcome, or a 202 if there is none in time.
    """
    new = await message_of(request, NewOrder)
    key, wait = _IDEMPOTENCY_KEY.of(request), PREFER.of(request)
    order_id = new.id or (order_id_for(key) if key is not None else None)
    if order_id is None:
        return await _place_new(host, request, _order(new, _fresh_id(host)), wait)
    place_here = partial(_place, host, request, _order(new, order_id), wait)
    deadline = deadline_of(request)
    if wait is not None and wait.deadline.remaining() > deadline.remaining():
        deadline = wait.deadline
    return await route_to_owner(request, host, ORDERS_VIEW, order_id, deadline, place_here)


async def _place(host: Host, request: web.Request, order: Order, wait: Wait | None) -> web.Response:
    command = partial(place, order)
    existing = await host.submit(ORDERS_VIEW, order.id, command)
    if existing is not None:
        _check_same(order, existing)
    status = 201 if existing is None else 200
    if wait is None:
        return _placed(existing or order, status)
    return await _outcome(host, request, existing or order, wait, status)


async def _place_new(host: Host, request: web.Request, order: Order, wait: Wait | None) -> web.Response:
    """Places an order under a generated id; without the partition, produces it directly.

    No other order can have the id, so the owner need not compare. During a rebalance no worker need own the key.
    """
    try:
        return await _place(host, request, order, wait)
    except KeyNotOwned:
        await host.produce(ORDERS, order)  # may repeat a write that took effect: equal orders are one order
        return _placed(order, 201) if wait is None else _undecided(OrderView(order=order), order, wait)


async def _outcome(host: Host, request: web.Request, order: Order, wait: Wait, status: int) -> web.Response:
    """The outcome of a placed order, with a status; a 202 if it is not decided in time.

    A 202 as well if the partition is revoked or the worker stops: the order is placed, and a client that repeated the
    request without an id would place another.
    """
    view: OrderView | None = None
    with suppress(KeyNotOwned, HttpProblem), wait.admitted(request) as deadline:
        view = await wait_for_row(host, ORDERS_VIEW, order.id, deadline, lambda view: view.decided)
    if view is None or not view.decided:
        return _undecided(view, order, wait)
    return answer(view.outcome(), status, {**location(PATH, order.id), **wait.applied})


def _undecided(view: OrderView | None, order: Order, wait: Wait) -> web.Response:
    return answer(_known(view, order).outcome(), 202, {**location(PATH, order.id), **wait.applied})


def _known(view: OrderView | None, order: Order) -> OrderView:
    """What is known of a placed order: its row, once the row has the order."""
    return view if view is not None and view.order is not None else OrderView(order=order)


async def delete_order(aggregator: OrderAggregator, host: Host, request: web.Request) -> web.StreamResponse:
    """Answers 200 with the cancelled order, 409 if it has failed or been shipped, 404 if it does not exist."""
    order_id, deadline = ORDER_ID.of(request), deadline_of(request)
    cancel = partial(_cancel, aggregator, host, order_id, deadline)
    return await route_to_owner(request, host, ORDERS_VIEW, order_id, deadline, cancel)


async def _cancel(aggregator: OrderAggregator, host: Host, order_id: str, deadline: Deadline) -> web.Response:
    view = await wait_for_row(host, ORDERS_VIEW, order_id, deadline, lambda view: view.order is not None)
    if view is None or view.order is None:
        raise unknown_order(order_id)
    order = await host.submit(ORDERS_VIEW, order_id, partial(aggregator.cancel, order_id, CANCELLED_BY_CLIENT))
    if order is None:
        raise unknown_order(order_id)
    if order.state is not OrderState.CANCELLED:
        raise HttpProblem(409, f"The order {order_id!r} is {order.state}: it cannot be cancelled any more.")
    return answer(order)


def _prepare(host: Host, body: bytes) -> PreparedCommand[Order | None]:
    """The command that places an order, for the fast path. An order that exists is for `post_order`."""
    new = NewOrder.from_json(body)
    order = _order(new, new.id or _fresh_id(host))

    def respond(existing: Order | None) -> FastResponse | None:
        return FastResponse(201, order.to_json(), location(PATH, order.id)) if existing is None else None

    def outcome(view: OrderView | None) -> FastResponse:
        """As `_outcome` answers an order that is new."""
        known = _known(view, order)
        return FastResponse(201 if known.decided else 202, known.outcome().to_json(), location(PATH, order.id))

    async def produce() -> None:
        """As `_place_new` does without the partition."""
        await host.produce(ORDERS, order)

    recover = produce if new.id is None else None
    return PreparedCommand(ORDERS_VIEW, order.id, partial(place, order), respond, outcome, recover)


def _fresh_id(host: Host) -> str:
    fresh = (new_order_id() for _ in range(FRESH_IDS))
    return next((id_ for id_ in fresh if host.owns(id_)), new_order_id())


def _order(new: NewOrder, order_id: str) -> Order:
    return Order.model_validate({**new.model_dump(), "id": order_id, "created_at": datetime.now(UTC)})


def _placed(order: Order, status: int) -> web.Response:
    return answer(order, status, location(PATH, order.id))


def _check_same(posted: Order, existing: Order) -> None:
    """Raises `HttpProblem` (409) if the id has another order."""
    if posted.same_content(existing):
        return
    differing = posted.differing(existing, "customer_id", "product", "quantity", "price")
    detail = f"There is an order {existing.id!r} already, with another {', '.join(differing)}. Choose another id."
    raise HttpProblem(409, detail, headers=location(PATH, existing.id))


def endpoints(aggregator: OrderAggregator) -> tuple[Endpoint, ...]:
    """Declares the endpoints of the service. `aggregator` decides whether an order can be cancelled."""
    post = Endpoint(
        "POST",
        PATH,
        post_order,
        name="postOrder",
        summary="Place an order",
        description="Idempotent with an id or an Idempotency-Key: repeated requests create one order. With "
        "`Prefer: wait=10` the answer has the outcome: one request instead of two.",
        tag="orders",
        parameters=(_IDEMPOTENCY_KEY, PREFER),
        body=NewOrder,
        routed=True,
        fast=FastCommand(_prepare, ready=lambda view: view.decided),
        answers={
            201: Answer("The order is written to Kafka", Order, (*_LOCATION, APPLIED), preferred=OrderOutcome),
            200: Answer("The order existed; its current state", Order, (*_LOCATION, APPLIED), preferred=OrderOutcome),
            202: Answer(
                "With `Prefer: wait`: written to Kafka, and not decided in time; the verdicts so far",
                OrderOutcome,
                (*_LOCATION, APPLIED),
            ),
        },
        problems=(409,),
    )
    cancel = Endpoint(
        "DELETE",
        f"{PATH}/{{id}}",
        partial(delete_order, aggregator),
        name="cancelOrder",
        summary="Cancel an order that is not shipped",
        description="Idempotent. Waits until the order exists. What was paid is announced on `refunds`.",
        tag="orders",
        parameters=(ORDER_ID,),
        routed=True,
        answers={200: Answer("The cancelled order", Order)},
        problems=(409,),
    )
    return (post, *QUERIES, EVENTS, cancel)
