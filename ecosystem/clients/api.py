"""The HTTP services as their clients see them."""

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from schemas.api import (
    Checkin,
    FulfilmentStatus,
    NewCheckin,
    NewOrder,
    NewProduct,
    OrderOutcome,
    PortalCheckins,
    Problem,
    Product,
    ProductContent,
)
from schemas.messages import Order

_GRACE_S = 5.0
"""How long an answer may take beyond the time it was asked to wait for."""


class Unreachable(Exception):
    """Nobody answered, or the connection broke: the request may or may not have been carried out."""


class RequestRejected(Exception):
    """The service answered with a problem (RFC 9457)."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        faults = "; ".join(f"{fault.name}: {fault.reason}" for fault in problem.errors or ())
        said = [problem.detail or "", f"({faults})" if faults and faults not in (problem.detail or "") else ""]
        super().__init__(f"{problem.status} {problem.title}. {' '.join(filter(None, said))}".strip())

    @property
    def status(self) -> int:
        return self.problem.status


class Api:
    """A client of one worker. Methods raise `RequestRejected` or `Unreachable`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def services(self) -> tuple[str, ...]:
        """The services of the worker; none if it is not ready. Raises `Unreachable` alone."""
        try:
            return tuple(json.loads(await self._call("GET", "/readyz", 0))["services"])
        except (RequestRejected, ValueError, KeyError, TypeError):
            return ()

    async def _call(
        self,
        method: str,
        path: str,
        timeout_ms: int,
        body: bytes | None = None,
        more: Mapping[str, str] | None = None,
    ) -> bytes:
        query = f"?timeout={timeout_ms}" if method == "GET" else ""
        total = aiohttp.ClientTimeout(total=timeout_ms / 1000 + _GRACE_S)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        headers |= more or {}
        try:
            async with self._session.request(
                method,
                URL(f"{self.url}{path}{query}", encoded=True),
                data=body,
                headers=headers,
                timeout=total,
            ) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:  # the last: what is no URL
            raise Unreachable(str(error) or type(error).__name__) from error
        if answer.status >= 400:
            raise RequestRejected(_problem(answer, content))
        return content


class OrdersApi(Api):
    """The orders service. Timeouts are milliseconds, 0 = don't wait."""

    async def post(self, order: NewOrder) -> Order:
        """Returns the order once it is safe in Kafka. With an id of the client's own this may be repeated."""
        body = await self._call("POST", "/v1/orders", 10_000, order.to_json())
        return Order.from_json(body)

    async def get(self, order_id: str, timeout_ms: int) -> Order:
        """Returns the order as soon as it is there; a `RequestRejected` of 404 if it does not come in time."""
        return Order.from_json(await self._call("GET", f"/v1/orders/{quote(order_id, safe='')}", timeout_ms))

    async def validated(self, order_id: str, timeout_ms: int) -> OrderOutcome:
        """Returns what became of the order; a `RequestRejected` of 504 if that is not decided in time."""
        path = f"/v1/orders/{quote(order_id, safe='')}/validated"
        return OrderOutcome.from_json(await self._call("GET", path, timeout_ms))


class CheckinApi(Api):
    """The check-in service."""

    async def post(self, new: NewCheckin) -> Checkin:
        """Returns the check-in once it is kept. This may be repeated."""
        return Checkin.from_json(await self._call("POST", "/api/SOA/home/checkin", 10_000, new.to_json()))

    async def get(self, event_id: str) -> Checkin:
        """The check-in and what became of it; a `RequestRejected` of 404 if there is none."""
        return Checkin.from_json(await self._call("GET", f"/api/SOA/home/checkin/{event_id}", 10_000))


class FulfilmentApi(Api):
    """The fulfilment service. Timeouts are milliseconds, 0 = don't wait."""

    async def status(self, order_id: str, timeout_ms: int) -> FulfilmentStatus:
        """What is missing before the order is shipped; a `RequestRejected` of 404 while nothing has happened for it."""
        path = f"/v1/orders/{quote(order_id, safe='')}/fulfilment"
        return FulfilmentStatus.from_json(await self._call("GET", path, timeout_ms))


class PortalApi(Api):
    """The portal. Timeouts are milliseconds, 0 = don't wait."""

    async def check_ins(self, order_no: str, timeout_ms: int) -> PortalCheckins:
        """The check-ins of an order; a `RequestRejected` of 404 while there are none."""
        path = f"/v1/portal/checkins/{quote(order_no, safe='')}"
        return PortalCheckins.from_json(await self._call("GET", path, timeout_ms))


class ProductsApi(Api):
    """The product service. Changes that name a `version` are refused (412) if the product has another one by now."""

    async def create(self, new: NewProduct) -> Product:
        """Returns the product once it is kept. This may be repeated; a `RequestRejected` of 409 if there is another
        one."""
        return Product.from_json(await self._call("POST", "/v1/products", 10_000, new.to_json()))

    async def get(self, code: str) -> Product:
        """The product, withdrawn ones too; a `RequestRejected` of 404 if there is none."""
        return Product.from_json(await self._call("GET", _product(code), 10_000))

    async def change(self, code: str, content: ProductContent, version: int | None = None) -> Product:
        """Returns the product as it is now. A withdrawn one is offered again, which needs its version."""
        body = await self._call("PUT", _product(code), 10_000, content.to_json(), _if_match(version))
        return Product.from_json(body)

    async def withdraw(self, code: str, version: int | None = None) -> Product:
        """Returns the product, withdrawn."""
        return Product.from_json(await self._call("DELETE", _product(code), 10_000, more=_if_match(version)))


def _product(code: str) -> str:
    return f"/v1/products/{quote(code, safe='')}"


def _if_match(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"{version}"'}


def _problem(answer: aiohttp.ClientResponse, content: bytes) -> Problem:
    try:
        return Problem.from_json(content)
    except ValueError:  # somebody else listens there, or stands in between
        return Problem(
            title=answer.reason or "Error", status=answer.status, detail=content[:200].decode(errors="replace")
        )
