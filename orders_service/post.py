"""`POST /v1/orders`: an idempotent endpoint for new orders."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from urllib.parse import quote

from aiohttp import web

from orders_service.place import place
from orders_service.state import ORDERS_VIEW
from runtime.errors import KeyNotOwned
from runtime.hosting import Host
from runtime.http.answers import HttpProblem, answer
from runtime.http.inputs import deadline_of, message_of
from runtime.http.routing import route_to_owner
from schemas.api import InvalidParam, NewOrder
from schemas.identifiers import is_composed, new_order_id, order_id_for
from schemas.messages import Order
from schemas.topics import ORDERS

IDEMPOTENCY_KEY = "Idempotency-Key"


class OrderEndpoint:
    """Handles `POST /v1/orders`."""

    FRESH_IDS = 64
    """Ids generated at most to find one whose partition this worker owns.

    With one of 16 partitions owned, 98 of 100 requests find one.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._at_least_once = host.settings.at_least_once

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Answers 201 once Kafka has the order, 200 if it existed, 409 if the id has another order."""
        new = await message_of(request, NewOrder)
        derived_id = _id_from_idempotency_key(request)
        order_id = new.id or derived_id
        if order_id is None:
            return await self._place_new(_order(new, self._fresh_id()))
        place_here = partial(self._place, _order(new, order_id))
        return await route_to_owner(request, self._host, ORDERS_VIEW, order_id, deadline_of(request), place_here)

    async def _place(self, order: Order) -> web.Response:
        existing = await self._host.submit(
            ORDERS_VIEW, order.id, partial(place, order, at_least_once=self._at_least_once)
        )
        return _created(order) if existing is None else _existing(order, existing)

    async def _place_new(self, order: Order) -> web.Response:
        """Places an order under a generated id; without the partition, produces it directly.

        No other order can have the id, so the owner need not compare. During a rebalance no worker need own the key.
        """
        try:
            return await self._place(order)
        except KeyNotOwned:
            await self._host.produce(ORDERS, order)  # may repeat a write that took effect: equal orders are one order
            return _created(order)

    def _fresh_id(self) -> str:
        fresh = (new_order_id() for _ in range(self.FRESH_IDS))
        return next((id_ for id_ in fresh if self._host.owns(id_)), new_order_id())


def _id_from_idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not key or not key.isprintable() or not is_composed(key):
        reason = "must be printable UTF-8 text in Unicode form NFC, a UUID for example"
        invalid = InvalidParam(name=IDEMPOTENCY_KEY, reason=reason)
        raise HttpProblem(400, f"The header {IDEMPOTENCY_KEY} {invalid.reason}.", errors=[invalid])
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
