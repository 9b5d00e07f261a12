"""Forwards a request to another worker, unchanged but for the remaining timeout."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from yarl import URL

from runtime.hosting import Host
from runtime.http.answers import HttpProblem
from runtime.http.event_stream import EVENT_STREAM, HEARTBEAT_S, STREAM_HEADERS
from runtime.http.inputs import Deadline, body_of
from runtime.http.signatures import forwarding_headers
from runtime.http.tracing import forwarded

log = logging.getLogger(__name__)

NOT_OWNED = "X-Not-Here"
"""Header of a 503: this worker does not own the key. The forwarding worker may ask the current owner."""

READ_FROM = "X-Read-From"
"""Header of a forwarded GET, with the value `standby`: the owner is unavailable, a stale read is acceptable."""

SERVED_BY = "X-Served-By"
"""Header of a response, with the value `standby`: a stale read; `Age` is the age of the standby replica."""

_SESSION = web.AppKey("forwarding", aiohttp.ClientSession)

# Headers that services read, and that their responses have. Content-Encoding is not forwarded, because the body was
# decompressed when it was read.
_REQUEST_HEADERS = ("Content-Type", "Idempotency-Key", "Accept", "Prefer", "Last-Event-ID")
ANSWER_HEADERS = ("Content-Type", "Location", "Retry-After", "Preference-Applied", SERVED_BY, "Age")

CONNECT_S = 2.0
"""Seconds for a connection to another worker."""

GRACE_S = 2.0
"""Seconds beyond the request's timeout: the owner answers at the end of that timeout."""

CHECK_OWNER_S = 1.0
"""Seconds between two checks whether the called worker still owns the key: it may be paused, and replaced."""

_STREAM_SILENCE_S = 3 * HEARTBEAT_S
"""Seconds of silence after which a stream from another worker is given up: that worker is paused, or lost."""

_STANDBY_S = 1.0
"""Seconds for a standby's response: it answers from its state, without waiting."""


async def forwarding_session(app: web.Application) -> AsyncIterator[None]:
    """Opens the session for calls to other workers; closes it with the application."""
    # No limit of connections: each client that waits for an order of another worker uses one.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        # A body without a Content-Type is forwarded without one.
        skip_auto_headers=("Content-Type", "User-Agent", "Accept", "Accept-Encoding"),
        raise_for_status=False,
    ) as session:
        app[_SESSION] = session
        yield


def first_check_s(remaining_s: float) -> float:
    """Seconds after which to check for the first time, with so many seconds until the deadline."""
    return min(CHECK_OWNER_S, max(remaining_s / 2, 0.1))


async def forward(
    request: web.Request,
    host: Host,
    owner: URL,
    deadline: Deadline,
    still_needed: Callable[[], bool],
    stale_read: Callable[[], Awaitable[web.StreamResponse | None]],
) -> web.StreamResponse | None:
    """Forwards a request to the key owner. Returns its response, or `None` if it is unavailable or not the owner.

    Only for idempotent requests: an owner that crashed may have executed the request before.

    Arguments:
        request: the client's.
        host: this worker.
        owner: base URL of the owner.
        deadline: of the request.
        still_needed: checked every second; `None` is returned once it is false.
        stale_read: called every second while the owner is silent, which may be waiting for the order or paused; its
            response, if any, is returned.
    """
    # The body of a read has no meaning.
    body = await body_of(request) if request.body_exists and request.method not in {"GET", "HEAD"} else None
    remaining = deadline.remaining()
    target = _target(request, remaining)
    call = asyncio.ensure_future(_call(request, host, owner, target, body, remaining + GRACE_S))
    pause = first_check_s(remaining)
    try:
        while not (await asyncio.wait({call}, timeout=pause))[0]:
            if not still_needed():
                return None
            response = await stale_read()
            if response is not None:
                return response
            pause = CHECK_OWNER_S
        return call.result()
    except (aiohttp.ClientError, TimeoutError) as error:
        log.debug("forwarding failed owner=%s error=%r", owner, error)
        return None
    finally:
        call.cancel()


async def forward_stream(
    request: web.Request, host: Host, owner: URL, deadline: Deadline, still_needed: Callable[[], bool]
) -> web.StreamResponse | None:
    """Forwards a GET whose response is a stream, and passes the stream on until it ends.

    Returns the response, or `None` if the owner is unavailable or not the owner. A stream that was begun just ends when
    its owner fails: its client asks again, and says up to where it knows.

    Arguments:
        request: the client's.
        host: this worker.
        owner: base URL of the owner.
        deadline: of the first event.
        still_needed: checked with each part of the stream, which ends once it is false.
    """
    target = _target(request, deadline.remaining())
    response: web.StreamResponse | None = None
    try:
        async with asyncio.timeout(deadline.remaining() + GRACE_S) as limit:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=_STREAM_SILENCE_S)
            async with _sent(request, host, owner, target, None, timeout) as own:
                if own.status != 200 or own.content_type != EVENT_STREAM:
                    return await _answered(own, owner)
                response = web.StreamResponse(headers=STREAM_HEADERS)
                await response.prepare(request)
                limit.reschedule(None)
                async for part in own.content.iter_any():
                    await response.write(part)
                    if not still_needed():
                        break
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        log.debug("stream from the owner ended owner=%s error=%r", owner, error)
    return response


async def ask_standby(request: web.Request, host: Host, standby: URL) -> web.Response | None:
    """Forwards a GET as a stale read to a standby. Returns its response if that is 200, else `None`."""
    try:
        response = await _call(
            request, host, standby, _target(request, 0), None, _STANDBY_S, headers={READ_FROM: "standby"}
        )
    except (aiohttp.ClientError, TimeoutError, HttpProblem) as error:
        log.debug("stale read failed standby=%s error=%r", standby, error)
        return None
    return response if response is not None and response.status == 200 else None


def _target(request: web.Request, remaining: float) -> str:
    """Path and query of the request with the remaining timeout, in the client's percent-encoding."""
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
    timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_S)
    async with _sent(request, host, to, target, body, timeout, headers) as response:
        return await _answered(response, to)


@asynccontextmanager
async def _sent(
    request: web.Request,
    host: Host,
    to: URL,
    target: str,
    body: bytes | None,
    timeout: aiohttp.ClientTimeout,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[aiohttp.ClientResponse]:
    sent = {name: value for name in _REQUEST_HEADERS if (value := request.headers.get(name)) is not None}
    sent |= forwarding_headers(host.settings.worker_keys, host.url, request.method, target)
    async with (
        forwarded(request, to.host or "") as trace,
        request.app[_SESSION].request(
            request.method,
            URL(f"{to.origin()}{target}", encoded=True),
            data=body,
            headers={**sent, **(headers or {}), **trace},
            timeout=timeout,
            allow_redirects=False,
        ) as response,
    ):
        yield response


async def _answered(response: aiohttp.ClientResponse, by: URL) -> web.Response | None:
    """The response of another worker, to be passed on; `None` if it does not own the key."""
    if response.status == 503 and NOT_OWNED in response.headers:
        return None
    if response.status == 401:
        remedy = "align WORKER_KEYS and clocks of all workers"
        log.error("signature rejected by worker url=%s remedy=%s", by.origin(), remedy)
        raise HttpProblem(502, "The worker that owns this key rejects the signature of this one.")
    kept = {name: value for name in ANSWER_HEADERS if (value := response.headers.get(name)) is not None}
    return web.Response(status=response.status, body=await response.read(), headers=kept)
