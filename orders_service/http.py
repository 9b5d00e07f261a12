"""HTTP endpoints of the orders service: `POST /v1/orders`, and the queries of `queries.py`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from urllib.parse import quote

from aiohttp import web

from orders_service.commands import place
from orders_service.processors import OrderAggregator
from orders_service.queries import UndecidedOrder, get_order, get_validated_order, unknown_order, wait_for_order
from orders_service.state import ORDERS_VIEW
from runtime.errors import KeyNotOwned
from runtime.hosting import Answer, Endpoint, Host, Parameter, ResponseHeader
from runtime.http.answers import PROBLEM_JSON, HttpProblem, answer
from runtime.http.inputs import ORDER_ID, Deadline, deadline_of, message_of, order_id_of
from runtime.http.routing import STALE_READ, route_to_owner
from runtime.http.validation import invalid_input
from schemas.api import NewOrder, OrderOutcome
from schemas.identifiers import is_composed, new_order_id, order_id_for
from schemas.messages import Order, OrderState
from schemas.topics import ORDERS

CANCELLED_BY_CLIENT = "cancelled by the client"
"""Reason of an order that was cancelled over HTTP."""

FRESH_IDS = 64
"""Ids generated at most to find one whose partition this worker owns.

With one of 16 partitions owned, 98 of 100 requests find one.
"""

_IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    {"type": "string", "pattern": "^[ -~]*[!-~][ -~]*$", "examples": ["7b7f2a3c-0f0e-4b8e-9d6c-0a1b2c3d4e5f"]},
    "For a body without an id: requests with the same key create one order. Printable text outside ASCII is "
    "accepted if encoded as UTF-8.",
)
_LOCATION = (ResponseHeader("Location", "URL of the order"),)


async def post_order(host: Host, request: web.Request) -> web.StreamResponse:
    """Answers 201 once Kafka has the order, 200 if it existed, 409 if the id has another order."""
    new = await message_of(request, NewOrder)
    derived_id = _id_from_idempotency_key(request)
    order_id = new.id or derived_id
    if order_id is None:
        return await _place_new(host, _order(new, _fresh_id(host)))
    place_here = partial(_place, host, _order(new, order_id))
    return await route_to_owner(request, host, ORDERS_VIEW, order_id, deadline_of(request), place_here)


async def _place(host: Host, order: Order) -> web.Response:
    command = partial(place, order)
    existing = await host.submit(ORDERS_VIEW, order.id, command)
    return _created(order) if existing is None else _existing(order, existing)


async def _place_new(host: Host, order: Order) -> web.Response:
    """Places an order under a generated id; without the partition, produces it directly.

    No other order can have the id, so the owner need not compare. During a rebalance no worker need own the key.
    """
    try:
        return await _place(host, order)
    except KeyNotOwned:
        await host.produce(ORDERS, order)  # may repeat a write that took effect: equal orders are one order
        return _created(order)


class CancelEndpoint:
    """Handles `DELETE /v1/orders/{id}`.

    Arguments:
        aggregator: decides whether the order can be cancelled.
    """

    def __init__(self, aggregator: OrderAggregator) -> None:
        self._aggregator = aggregator

    async def delete_order(self, host: Host, request: web.Request) -> web.StreamResponse:
        """Answers 200 with the cancelled order, 409 if it has failed or been shipped, 404 if it does not exist."""
        order_id, deadline = order_id_of(request), deadline_of(request)
        cancel = partial(self._cancel, host, order_id, deadline)
        return await route_to_owner(request, host, ORDERS_VIEW, order_id, deadline, cancel)

    async def _cancel(self, host: Host, order_id: str, deadline: Deadline) -> web.Response:
        await wait_for_order(host, order_id, deadline)
        command = partial(self._aggregator.cancel, order_id, CANCELLED_BY_CLIENT)
        order = await host.submit(ORDERS_VIEW, order_id, command)
        if order is None:
            raise unknown_order(order_id)
        if order.state is not OrderState.CANCELLED:
            raise HttpProblem(409, f"The order {order_id!r} is {order.state}: it cannot be cancelled any more.")
        return answer(order)


def _fresh_id(host: Host) -> str:
    fresh = (new_order_id() for _ in range(FRESH_IDS))
    return next((id_ for id_ in fresh if host.owns(id_)), new_order_id())


def _id_from_idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get(_IDEMPOTENCY_KEY.name)
    if key is None:
        return None
    if not key or not key.isprintable() or not is_composed(key):
        reason = "must be printable UTF-8 text in Unicode form NFC, a UUID for example"
        raise invalid_input(_IDEMPOTENCY_KEY.name, reason, f"The header {_IDEMPOTENCY_KEY.name} {reason}.")
    return order_id_for(key)


def _order(new: NewOrder, order_id: str) -> Order:
    return Order(
        id=order_id,
        customer_id=new.customer_id,
        product=new.product,
        quantity=new.quantity,
        price=new.price,
        created_at=datetime.now(UTC),
    )


def _created(order: Order) -> web.Response:
    return answer(order, 201, _location(order))


def _existing(posted: Order, existing: Order) -> web.Response:
    if posted.same_content(existing):
        return answer(existing, 200, _location(existing))
    differing = [name for name in ("customerId", "product", "quantity", "price") if _differs(posted, existing, name)]
    detail = f"There is an order {existing.id!r} already, with another {', '.join(differing)}. Choose another id."
    raise HttpProblem(409, detail, headers=_location(existing))


def _differs(posted: Order, existing: Order, name: str) -> bool:
    field = {"customerId": "customer_id"}.get(name, name)
    return bool(getattr(posted, field) != getattr(existing, field))


def _location(order: Order) -> Mapping[str, str]:
    return {"Location": f"/v1/orders/{quote(order.id, safe='')}"}


def endpoints(aggregator: OrderAggregator) -> tuple[Endpoint, ...]:
    """Declares the endpoints of the service."""
    cancel = Endpoint(
        "DELETE",
        "/v1/orders/{id}",
        CancelEndpoint(aggregator).delete_order,
        name="cancelOrder",
        summary="Cancel an order that is not shipped",
        description="Idempotent. Waits until the order exists. What was paid is announced on `refunds`.",
        tag="orders",
        parameters=(ORDER_ID,),
        routed=True,
        answers={200: Answer("The cancelled order", Order)},
        problems=(409,),
    )
    return (*_ENDPOINTS, cancel)


_ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/orders",
        post_order,
        name="postOrder",
        summary="Place an order",
        description="Idempotent with an id or an Idempotency-Key: repeated requests create one order.",
        tag="orders",
        parameters=(_IDEMPOTENCY_KEY,),
        body=NewOrder,
        routed=True,
        answers={
            201: Answer("The order is written to Kafka", Order, _LOCATION),
            200: Answer("The order existed; its current state", Order, _LOCATION),
        },
        problems=(409,),
    ),
    Endpoint(
        "GET",
        "/v1/orders/{id}",
        get_order,
        name="getOrder",
        summary="Get an order, waiting until it exists",
        tag="orders",
        parameters=(ORDER_ID,),
        routed=True,
        answers={200: Answer("The current state of the order", Order, STALE_READ)},
    ),
    Endpoint(
        "GET",
        "/v1/orders/{id}/validated",
        get_validated_order,
        name="getValidatedOrder",
        summary="Get the outcome of an order, waiting until it is decided",
        tag="orders",
        parameters=(ORDER_ID,),
        routed=True,
        answers={
            200: Answer("VALIDATED, FAILED, SHIPPED or CANCELLED, with the verdicts", OrderOutcome, STALE_READ),
            504: Answer(
                "Not decided at the timeout: state and verdicts so far", UndecidedOrder, media_type=PROBLEM_JSON
            ),
        },
    ),
)
