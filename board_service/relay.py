"""Passes requests of the board on to workers with other services, which need not be this one."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import web
from yarl import URL

from board_service.deployment import Deployment
from runtime.hosting import Host
from runtime.http.answers import HttpProblem
from schemas.messages import Order

ORDERS, HISTORY = "orders", "history"
_PASSED = ("Content-Type", "Location", "Retry-After")
"""Headers of an answer that are passed on."""
_POST_S, _GET_S = 20.0, 6.0
"""Seconds for an answer."""


class Relay:
    """Calls the APIs of the orders and history services.

    Arguments:
        deployment: knows who runs them.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def runs(self, service: str, host: Host) -> bool:
        """Whether a worker is known that runs a service."""
        return self._deployment.url_of(service, host) is not None

    async def place(self, host: Host, body: bytes, headers: Mapping[str, str]) -> web.Response:
        """Posts an order, and passes the answer on. Raises `HttpProblem` (502, 503) without one."""
        url = self._deployment.url_of(ORDERS, host)
        if url is None:
            raise HttpProblem(
                503,
                "The board knows no worker with the orders service (yet). Set BOARD_ORDERS_URL, or look at the board "
                "for two seconds.",
                headers={"Retry-After": "2"},
            )
        try:
            async with (
                _session(_POST_S) as session,
                session.post(url / "v1" / "orders", data=body, headers=headers) as response,
            ):
                passed = {name: value for name in _PASSED if (value := response.headers.get(name)) is not None}
                return web.Response(status=response.status, body=await response.read(), headers=passed)
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise HttpProblem(502, f"The orders service at {url.origin()} does not answer: {reason}.") from None

    async def order(self, host: Host, order_id: str) -> Order | None:
        """The present state of an order, from the orders service; `None` if it does not exist or nobody answers."""
        found = await self._get(host, ORDERS, ("v1", "orders", order_id), {"timeout": "0"})
        return None if found is None else Order.model_validate(found)

    async def history(self, host: Host, order_id: str) -> Mapping[str, Any] | None:
        """All records about an order, from the history service; `None` if there are none or nobody answers."""
        return await self._get(host, HISTORY, ("v1", "orders", order_id, "history"), {})

    async def explanation(self, host: Host, order_id: str) -> Mapping[str, Any] | None:
        """Why an order is in its state, from the history service; `None` if it is not known or nobody answers."""
        return await self._get(host, HISTORY, ("v1", "orders", order_id, "explain"), {})

    async def search(self, host: Host, text: str, limit: int) -> Mapping[str, Any] | None:
        """A page of the history's orders with a text; `None` if nobody answers."""
        return await self._get(host, HISTORY, ("v1", "orders"), {"q": text, "limit": str(limit)})

    async def _get(
        self, host: Host, service: str, path: tuple[str, ...], query: Mapping[str, str]
    ) -> Mapping[str, Any] | None:
        url = self._deployment.url_of(service, host)
        if url is None:
            return None
        try:
            async with _session(_GET_S) as session, session.get(_url(url, path), params=query) as response:
                found = await response.json() if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        return found if isinstance(found, dict) else None


def _session(seconds: float) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=2.0)
    return aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())


def _url(base: URL, path: tuple[str, ...]) -> URL:
    """A URL with names as parts of its path, percent-encoded; dots as well, since `..` would leave the path."""
    return URL(
        "/".join([str(base.origin()), *(quote(part, safe="").replace(".", "%2E") for part in path)]), encoded=True
    )
