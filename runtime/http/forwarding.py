"""Sending a request on to another worker, as it came, with the time that is left for it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import web
from yarl import URL

from runtime.hosting import Host
from runtime.http.answers import Refused
from runtime.http.inputs import Deadline, body_of
from runtime.http.signatures import marked

log = logging.getLogger(__name__)

NOT_HERE = "X-Not-Here"
"""On a 503: the key is not held here, so the request may be put to whoever holds it now."""

SESSION = web.AppKey("forwarding", aiohttp.ClientSession)

# What the routes of a service read, and what their answers carry. A body goes without its Content-Encoding: by then it
# has been read, and with that decompressed.
_REQUEST_HEADERS = ("Content-Type", "Idempotency-Key", "Accept")
_ANSWER_HEADERS = ("Content-Type", "Location", "Retry-After")

_CONNECT_S = 2.0
# For the owner to answer at the end of its own waiting, which is the time that was left for it.
_GRACE_S = 2.0
# How often to look whether the key is still with the worker that was asked: it may have been paused, and replaced.
_STILL_THERE_S = 1.0


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
    request: web.Request, host: Host, owner: URL, deadline: Deadline, still: Callable[[], bool]
) -> web.Response | None:
    """The owner's answer; `None` if it has none, being gone, or no longer the owner, or no longer `still` asked for.

    Only for requests that may be put twice: an owner that died has perhaps done what it was asked before it died.
    """
    body = await body_of(request) if request.body_exists else None
    # Path as it came: what was percent-encoded stays so.
    target = request.rel_url.update_query(timeout=str(int(deadline.remaining() * 1000))).raw_path_qs
    headers = {name: value for name in _REQUEST_HEADERS if (value := request.headers.get(name)) is not None}
    headers |= marked(host.settings.worker_keys, host.url, request.method, target)
    call = asyncio.ensure_future(
        _call(
            request.app[SESSION],
            request.method,
            URL(f"{owner.origin()}{target}", encoded=True),
            headers,
            body,
            deadline,
        )
    )
    try:
        while not (await asyncio.wait({call}, timeout=_STILL_THERE_S))[0]:
            if not still():
                return None
        return call.result()
    except (aiohttp.ClientError, TimeoutError) as error:
        log.debug("No answer from %s: %r", owner, error)
        return None
    finally:
        call.cancel()


async def _call(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    headers: dict[str, str],
    body: bytes | None,
    deadline: Deadline,
) -> web.Response | None:
    timeout = aiohttp.ClientTimeout(total=deadline.remaining() + _GRACE_S, sock_connect=_CONNECT_S)
    async with session.request(
        method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
    ) as answered:
        if answered.status == 503 and NOT_HERE in answered.headers:
            return None
        if answered.status == 401:
            log.error("%s refuses this worker's signature: their WORKER_KEYS differ, or their clocks", url.origin())
            raise Refused(502, "The worker that holds this key refuses the signature of this one.")
        kept = {name: value for name in _ANSWER_HEADERS if (value := answered.headers.get(name)) is not None}
        return web.Response(status=answered.status, body=await answered.read(), headers=kept)
