"""Sending a request on to another worker, as it came, with the time that is left for it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import aiohttp
from aiohttp import web
from yarl import URL

from runtime.hosting import Host
from runtime.http.answers import HttpProblem
from runtime.http.inputs import Deadline, body_of
from runtime.http.signatures import marked

log = logging.getLogger(__name__)

NOT_HERE = "X-Not-Here"
"""On a 503: the key is not held here, so the request may be put to whoever holds it now."""

READ_FROM = "X-Read-From"
"""On a forwarded GET, with the value `standby`: the owner does not answer, so whoever has a copy may."""

SERVED_BY = "X-Served-By"
"""On an answer, with the value `standby`: it comes from a copy, which is as old as the header `Age` says."""

SESSION = web.AppKey("forwarding", aiohttp.ClientSession)

# What the routes of a service read, and what their answers carry. A body goes without its Content-Encoding: by then it
# has been read, and with that decompressed.
_REQUEST_HEADERS = ("Content-Type", "Idempotency-Key", "Accept")
_ANSWER_HEADERS = ("Content-Type", "Location", "Retry-After", SERVED_BY, "Age")

_CONNECT_S = 2.0
# For the owner to answer at the end of its own waiting, which is the time that was left for it.
_GRACE_S = 2.0
# How often to look whether the key is still with the worker that was asked: it may have been paused, and replaced.
_STILL_THERE_S = 1.0
# How long a standby may take: it answers from what it has, or not at all.
_STANDBY_S = 1.0


async def client(app: web.Application) -> AsyncIterator[None]:
    """Keeps the session through which an application calls other workers, for as long as the application runs."""
    # No limit to connections: every client that waits for an order elsewhere holds one.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        # A body that came without a Content-Type goes on without one.
        skip_auto_headers=("Content-Type", "User-Agent", "Accept", "Accept-Encoding"),
        raise_for_status=False,
    ) as session:
        app[SESSION] = session
        yield


async def forward(
    request: web.Request,
    host: Host,
    owner: URL,
    deadline: Deadline,
    still: Callable[[], bool],
    instead: Callable[[], Awaitable[web.StreamResponse | None]],
) -> web.StreamResponse | None:
    """The owner's answer; `None` if it has none, being gone, or no longer the owner, or no longer `still` asked for.

    An owner that says nothing may be waiting for the order, or frozen. After a while of that, and then again and again,
    `instead` is asked for an answer that is as good.

    Only for requests that may be put twice: an owner that died has perhaps done what it was asked before it died.
    """
    # The body of a read says nothing, whoever answers it.
    body = await body_of(request) if request.body_exists and request.method not in {"GET", "HEAD"} else None
    remaining = deadline.remaining()
    target = _target(request, remaining)
    call = asyncio.ensure_future(_call(request, host, owner, target, body, remaining + _GRACE_S))
    silence = min(_STILL_THERE_S, max(remaining / 2, 0.1))
    try:
        while not (await asyncio.wait({call}, timeout=silence))[0]:
            if not still():
                return None
            response = await instead()
            if response is not None:
                return response
            silence = _STILL_THERE_S
        return call.result()
    except (aiohttp.ClientError, TimeoutError) as error:
        log.debug("No answer from %s: %r", owner, error)
        return None
    finally:
        call.cancel()


async def ask_standby(request: web.Request, host: Host, standby: URL) -> web.Response | None:
    """What another worker's copy answers to this GET; `None` if it has no answer."""
    try:
        answered = await _call(
            request, host, standby, _target(request, 0), None, _STANDBY_S, headers={READ_FROM: "standby"}
        )
    except (aiohttp.ClientError, TimeoutError, HttpProblem) as error:
        log.debug("No answer from %s: %r", standby, error)
        return None
    return answered if answered is not None and answered.status == 200 else None


def _target(request: web.Request, remaining: float) -> str:
    """Path and query as they came, with the time that is left: what was percent-encoded stays so."""
    return request.rel_url.update_query(timeout=str(int(remaining * 1000))).raw_path_qs


async def _call(
    request: web.Request,
    host: Host,
    to: URL,
    target: str,
    body: bytes | None,
    seconds: float,
    headers: Mapping[str, str] | None = None,
) -> web.Response | None:
    sent = {name: value for name in _REQUEST_HEADERS if (value := request.headers.get(name)) is not None}
    sent |= marked(host.settings.worker_keys, host.url, request.method, target)
    async with request.app[SESSION].request(
        request.method,
        URL(f"{to.origin()}{target}", encoded=True),
        data=body,
        headers={**sent, **(headers or {})},
        timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_S),
        allow_redirects=False,
    ) as answered:
        if answered.status == 503 and NOT_HERE in answered.headers:
            return None
        if answered.status == 401:
            log.error("%s refuses this worker's signature: their WORKER_KEYS differ, or their clocks", to.origin())
            raise HttpProblem(502, "The worker that holds this key refuses the signature of this one.")
        kept = {name: value for name in _ANSWER_HEADERS if (value := answered.headers.get(name)) is not None}
        return web.Response(status=answered.status, body=await answered.read(), headers=kept)
