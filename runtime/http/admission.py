"""How many requests a worker has in hand at a time, and what it says to its clients once it stops."""

from collections import Counter

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from runtime.hosting import Host
from runtime.http.answers import RETRY, problem

_IN_HAND = web.AppKey("requests in hand by whether they read", Counter[bool])

# Asked by those who decide about the worker: they must hear of it when it has too much to do, above all.
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics"})


def admission(host: Host) -> Middleware:
    """Refuses a request of which as many are in hand as there may be: those that wait, are passed on, or write.

    Those that read and those that write are counted apart: who waits for an order must not keep others from posting it.
    """
    most = host.settings.max_requests

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _ALWAYS:
            return _last(host, await handler(request))
        reads, in_hand = request.method in {"GET", "HEAD"}, request.app[_IN_HAND]
        if in_hand[reads] >= most:
            return _last(host, problem(503, f"{most} requests are in hand already. Repeat the request.", headers=RETRY))
        in_hand[reads] += 1
        try:
            return _last(host, await handler(request))
        finally:
            in_hand[reads] -= 1

    return admit


def in_hand(app: web.Application) -> int:
    """Requests that are not answered yet."""
    return app[_IN_HAND].total()


def prepare(app: web.Application) -> None:
    """Makes an application ready for `admission`."""
    app[_IN_HAND] = Counter()


def _last(host: Host, response: web.StreamResponse) -> web.StreamResponse:
    """Tells the client that its connection will not be answered again, once that is so."""
    if host.stopping and not response.prepared:
        response.force_close()
    return response
