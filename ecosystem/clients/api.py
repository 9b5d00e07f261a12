"""HTTP clients of the services."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode

import aiohttp
from pydantic import ValidationError
from yarl import URL

from ecosystem.clients.event_stream import read_events
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
    Verdict,
)
from schemas.history import OrderExplanation, OrderHistory, OrderPage, Timings
from schemas.messages import Order

_PAUSE_S = 0.5
"""Seconds before an interrupted stream is continued."""
_SILENCE_S = 45.0
"""Seconds of silence after which a stream is given up: workers send a comment every 15."""
_GRACE_S = 5.0
"""Seconds that a response may take beyond the timeout of its request."""


class Unreachable(Exception):
    """No response: the request may or may not have been carried out."""


class RequestRejected(Exception):
    """The service answered with a problem (RFC 9457). The text has status, title and details."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        faults = "; ".join(f"{fault.name}: {fault.reason}" for fault in problem.errors or ())
        details = [problem.detail or "", f"({faults})" if faults and faults not in (problem.detail or "") else ""]
        super().__init__(f"{problem.status} {problem.title}. {' '.join(filter(None, details))}".strip())

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
        """Returns the services of the worker; none if it is not ready. Raises only `Unreachable`."""
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
        extra_headers: Mapping[str, str] | None = None,
        query: Iterable[tuple[str, str]] = (),
    ) -> bytes:
        """Returns the body of the response. `_wait` is for requests that the worker holds back until a timeout."""
        parameters = urlencode(list(query))
        total = aiohttp.ClientTimeout(total=timeout_ms / 1000 + _GRACE_S)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        headers |= extra_headers or {}
        try:
            async with self._session.request(
                method,
                URL(f"{self.url}{path}{'?' if parameters else ''}{parameters}", encoded=True),
                data=body,
                headers=headers,
                timeout=total,
            ) as response:
                content = await response.read()
        except TimeoutError as error:
            raise Unreachable(f"no answer within {total.total:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: not a URL
            raise Unreachable(str(error) or type(error).__name__) from error
        if response.status >= 400:
            raise RequestRejected(_problem(response, content))
        return content

    async def _wait(self, method: str, path: str, timeout_ms: int) -> bytes:
        return await self._call(method, path, timeout_ms, query=[("timeout", str(timeout_ms))])


class OrdersApi(Api):
    """Client of the orders service. Timeouts are in milliseconds; 0: do not wait."""

    async def post(self, order: NewOrder) -> Order:
        """Places an order. Returns it once it is committed. May be repeated if the client chose the id."""
        body = await self._call("POST", "/v1/orders", 10_000, order.to_json())
        return Order.from_json(body)

    async def post_and_wait(self, order: NewOrder, timeout_ms: int) -> OrderOutcome:
        """Places an order. Returns its outcome, by one request if it is decided in time.

        Raises `RequestRejected` with 504 if it is not. May be repeated if the client chose the id.
        """
        prefer = {"Prefer": f"wait={math.ceil(timeout_ms / 1000)}"}
        body = await self._call("POST", "/v1/orders", 10_000 + timeout_ms, order.to_json(), prefer)
        try:
            outcome = OrderOutcome.from_json(body)
        except ValidationError:  # a worker of an earlier version answers with the order
            return await self.validated(Order.from_json(body).id, timeout_ms)
        return outcome if outcome.state.decided else await self.validated(outcome.id, 0)

    async def events(self, order_id: str, timeout_ms: int) -> AsyncIterator[Order | Verdict]:
        """Yields states and verdicts of an order until it has its final state. Continues an interrupted stream.

        Raises `RequestRejected` with 404 if the order does not exist in time; `Unreachable`, or `RequestRejected` with
        503, if nobody has answered for that time.
        """
        url = f"{self.url}/v1/orders/{quote(order_id, safe='')}/events?timeout={timeout_ms}"
        limit = aiohttp.ClientTimeout(total=None, sock_connect=_GRACE_S, sock_read=timeout_ms / 1000 + _SILENCE_S)
        last, until = "", time.monotonic() + timeout_ms / 1000
        while True:
            headers = {"Last-Event-ID": last} if last else {}
            try:
                async with self._session.get(URL(url, encoded=True), headers=headers, timeout=limit) as response:
                    again = response.status == 503 and time.monotonic() < until
                    if response.status >= 400 and not again:
                        raise RequestRejected(_problem(response, await response.read()))
                    async for event in read_events(response.content):
                        last, until = event.id, time.monotonic() + timeout_ms / 1000
                        message = Order if event.name == "state" else Verdict
                        yield (said := message.from_json(event.data.encode()))
                        if isinstance(said, Order) and said.state.final:
                            return
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:  # ValueError: not a URL
                if time.monotonic() >= until:
                    raise Unreachable(str(error) or type(error).__name__) from error
            await asyncio.sleep(_PAUSE_S)

    async def get(self, order_id: str, timeout_ms: int) -> Order:
        """Returns the order as soon as it exists. Raises `RequestRejected` with 404 if it does not in time."""
        return Order.from_json(await self._wait("GET", f"/v1/orders/{quote(order_id, safe='')}", timeout_ms))

    async def cancel(self, order_id: str, timeout_ms: int) -> Order:
        """Cancels an order and returns it.

        Raises `RequestRejected` with 409 if it has failed or been shipped, with 404 if it does not exist in time.
        """
        path = f"/v1/orders/{quote(order_id, safe='')}"
        return Order.from_json(await self._wait("DELETE", path, timeout_ms))

    async def validated(self, order_id: str, timeout_ms: int) -> OrderOutcome:
        """Returns the outcome of the order. Raises `RequestRejected` with 504 if it is not decided in time."""
        path = f"/v1/orders/{quote(order_id, safe='')}/validated"
        return OrderOutcome.from_json(await self._wait("GET", path, timeout_ms))


class CheckinApi(Api):
    """Client of the check-in service."""

    async def post(self, new: NewCheckin) -> Checkin:
        """Reports a check-in. Returns it once it is stored. May be repeated."""
        return Checkin.from_json(await self._call("POST", "/api/SOA/home/checkin", 10_000, new.to_json()))

    async def get(self, event_id: str) -> Checkin:
        """Returns a check-in with its state. Raises `RequestRejected` with 404 if it does not exist."""
        return Checkin.from_json(await self._call("GET", f"/api/SOA/home/checkin/{event_id}", 10_000))


class FulfilmentApi(Api):
    """Client of the fulfilment service. Timeouts are in milliseconds; 0: do not wait."""

    async def status(self, order_id: str, timeout_ms: int) -> FulfilmentStatus:
        """Returns what is missing before the order is shipped. `RequestRejected` with 404: no event yet."""
        path = f"/v1/orders/{quote(order_id, safe='')}/fulfilment"
        return FulfilmentStatus.from_json(await self._wait("GET", path, timeout_ms))


class HistoryApi(Api):
    """Client of the history service."""

    async def orders(self, query: Iterable[tuple[str, str]]) -> OrderPage:
        """Returns a page of orders. `query`: parameters of `GET /v1/orders`."""
        return OrderPage.from_json(await self._call("GET", "/v1/orders", 10_000, query=query))

    async def history(self, order_id: str) -> OrderHistory:
        """Returns all records about an order. Raises `RequestRejected` with 404 if there are none."""
        path = f"/v1/orders/{quote(order_id, safe='')}/history"
        return OrderHistory.from_json(await self._call("GET", path, 10_000))

    async def explain(self, order_id: str) -> OrderExplanation:
        """Returns why an order is in its state. Raises `RequestRejected` with 404 if it is not known."""
        path = f"/v1/orders/{quote(order_id, safe='')}/explain"
        return OrderExplanation.from_json(await self._call("GET", path, 10_000))

    async def timings(self, since: datetime | None, before: datetime | None) -> Timings:
        """Returns the times between the stages of the orders created in a range; `None`: without a bound."""
        bounds = {name: at.astimezone(UTC) for name, at in (("from", since), ("to", before)) if at is not None}
        query = [(name, f"{at:%Y-%m-%dT%H:%M:%S.%fZ}") for name, at in bounds.items()]
        return Timings.from_json(await self._call("GET", "/v1/timings", 60_000, query=query))


class PortalApi(Api):
    """Client of the portal. Timeouts are in milliseconds; 0: do not wait."""

    async def check_ins(self, order_no: str, timeout_ms: int) -> PortalCheckins:
        """Returns the check-ins of an order. Raises `RequestRejected` with 404 while there are none."""
        path = f"/v1/portal/checkins/{quote(order_no, safe='')}"
        return PortalCheckins.from_json(await self._wait("GET", path, timeout_ms))


class ProductsApi(Api):
    """Client of the product service. A change with a `version` is rejected (412) if the product has another version."""

    async def create(self, new: NewProduct) -> Product:
        """Offers a product. Returns it once it is stored. May be repeated.

        Raises `RequestRejected` with 409 if another product has the code.
        """
        return Product.from_json(await self._call("POST", "/v1/products", 10_000, new.to_json()))

    async def get(self, code: str) -> Product:
        """Returns a product, also a withdrawn one. Raises `RequestRejected` with 404 if it does not exist."""
        return Product.from_json(await self._call("GET", _product(code), 10_000))

    async def change(self, code: str, content: ProductContent, version: int | None = None) -> Product:
        """Changes a product and returns it. A withdrawn product is offered again; this needs its version."""
        body = await self._call("PUT", _product(code), 10_000, content.to_json(), _if_match(version))
        return Product.from_json(body)

    async def withdraw(self, code: str, version: int | None = None) -> Product:
        """Withdraws a product and returns it."""
        return Product.from_json(await self._call("DELETE", _product(code), 10_000, extra_headers=_if_match(version)))


def _product(code: str) -> str:
    return f"/v1/products/{quote(code, safe='')}"


def _if_match(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"{version}"'}


def _problem(response: aiohttp.ClientResponse, content: bytes) -> Problem:
    try:
        return Problem.from_json(content)
    except ValueError:  # another server, or a proxy
        return Problem(
            title=response.reason or "Error", status=response.status, detail=content[:200].decode(errors="replace")
        )
