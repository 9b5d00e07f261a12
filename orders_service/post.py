"""`POST /v1/orders`: an order is taken once, however often it is posted."""

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
from runtime.http.routing import at_owner
from schemas.api import InvalidParam, NewOrder
from schemas.identifiers import is_composed, new_order_id, order_id_for
from schemas.messages import Order
from schemas.topics import ORDERS

IDEMPOTENCY_KEY = "Idempotency-Key"


class OrderEndpoint:
    """Takes orders."""

    FRESH_IDS = 64
    """Tried until one belongs to a partition that is held here. With one of sixteen partitions, 98 of 100 find one."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._repeats = host.settings.at_least_once

    async def post(self, request: web.Request) -> web.StreamResponse:
        """201 once Kafka has the order; 200 if it had it already, 409 if another one under its id."""
        wanted = await message_of(request, NewOrder)
        by_key = _id_from(request)
        order_id = wanted.id or by_key
        if order_id is None:
            return await self._take_new(_order(wanted, self._fresh_id()))
        take = partial(self._take, _order(wanted, order_id))
        return await at_owner(request, self._host, ORDERS_VIEW, order_id, deadline_of(request), take)

    async def _take(self, order: Order) -> web.Response:
        known = await self._host.submit(ORDERS_VIEW, order.id, partial(place, order, repeats=self._repeats))
        return _created(order) if known is None else _known(order, known)

    async def _take_new(self, order: Order) -> web.Response:
        """A fresh id is nobody's yet: while partitions move, it may be written from here, whoever will hold it."""
        try:
            return await self._take(order)
        except KeyNotOwned:
            await self._host.produce(ORDERS, order)  # once more perhaps: the same order twice is one order
            return _created(order)

    def _fresh_id(self) -> str:
        fresh = (new_order_id() for _ in range(self.FRESH_IDS))
        return next((id_ for id_ in fresh if self._host.holds(id_)), new_order_id())


def _id_from(request: web.Request) -> str | None:
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not key or not key.isprintable() or not is_composed(key):
        reason = "must be printable UTF-8 text in Unicode form NFC, a UUID for example"
        fault = InvalidParam(name=IDEMPOTENCY_KEY, reason=reason)
        raise HttpProblem(400, f"The header {IDEMPOTENCY_KEY} {fault.reason}.", errors=[fault])
    return order_id_for(key)


def _order(wanted: NewOrder, order_id: str) -> Order:
    return Order(
        id=order_id,
        customer_id=wanted.customer_id,
        product=wanted.product,
        quantity=wanted.quantity,
        price=wanted.price,
        created_at=datetime.now(UTC),
    )


def _created(order: Order) -> web.Response:
    return answer(order, 201, _location(order))


def _known(posted: Order, known: Order) -> web.Response:
    if posted.same_content(known):
        return answer(known, 200, _location(known))
    differing = [name for name in ("customerId", "product", "quantity", "price") if _differs(posted, known, name)]
    detail = f"There is an order {known.id!r} already, with another {', '.join(differing)}. Choose another id."
    raise HttpProblem(409, detail, headers=_location(known))


def _differs(posted: Order, known: Order, name: str) -> bool:
    field = {"customerId": "customer_id"}.get(name, name)
    return bool(getattr(posted, field) != getattr(known, field))


def _location(order: Order) -> Mapping[str, str]:
    return {"Location": f"/v1/orders/{quote(order.id, safe='')}"}
