"""Limits the requests in flight, and closes clients' connections when the worker stops."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from runtime.hosting import Host
from runtime.http.answers import RETRY, problem

IN_FLIGHT = web.AppKey("requests in flight: of True reads, of False writes", Counter[bool])
_LIMIT = web.AppKey("most reads, and most writes, in flight", int)

# Probes and metrics are not limited: they matter most when the worker is overloaded.
_UNLIMITED = frozenset({"/healthz", "/readyz", "/metrics"})


def admission(host: Host) -> Middleware:
    """Answers 503 once MAX_REQUESTS reads (or writes) are in flight, waiting and forwarded ones included.

    Reads and writes have separate limits: clients that wait for orders must not keep others from posting them.
    """
    limit = host.settings.max_requests

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _UNLIMITED:
            return _close_when_stopping(host, await handler(request))
        is_read, in_flight = request.method in {"GET", "HEAD"}, request.app[IN_FLIGHT]
        if in_flight[is_read] >= limit:
            detail = f"{limit} requests are in flight, the most this worker accepts. Repeat the request."
            return _close_when_stopping(host, problem(503, detail, headers=RETRY))
        in_flight[is_read] += 1
        try:
            return _close_when_stopping(host, await handler(request))
        finally:
            in_flight[is_read] -= 1

    return admit


def count_as_read(in_flight: Counter[bool], limit: int) -> bool:
    """Counts a write as a read from now on, if there is room for another read: then it must be ended as one."""
    if in_flight[True] >= limit:
        return False
    in_flight[False] -= 1
    in_flight[True] += 1
    return True


@contextmanager
def counted_as_read(request: web.Request) -> Iterator[bool]:
    """Counts a write as a read, from when it only waits. Yields whether there is room for another read."""
    in_flight = request.app[IN_FLIGHT]
    if not count_as_read(in_flight, request.app[_LIMIT]):
        yield False
        return
    try:
        yield True
    finally:
        in_flight[True] -= 1
        in_flight[False] += 1


def requests_in_flight(app: web.Application) -> int:
    """The number of requests that are not answered yet."""
    return app[IN_FLIGHT].total()


def prepare_admission(app: web.Application, host: Host) -> None:
    """Prepares an application for the middleware `admission`."""
    app[IN_FLIGHT] = Counter()
    app[_LIMIT] = host.settings.max_requests


def _close_when_stopping(host: Host, response: web.StreamResponse) -> web.StreamResponse:
    """Adds `Connection: close` while the worker stops."""
    if host.stopping and not response.prepared:
        response.force_close()
    return response
