"""The routes of the orders service."""

from collections.abc import Iterable

from aiohttp import web

from orders_service.describe import openapi
from orders_service.post import OrderEndpoint
from orders_service.queries import OrderQueries
from runtime.hosting import Host

__all__ = ["openapi", "routes"]

# Any character but a slash, which comes percent-encoded; aiohttp's own `{id}` would leave out braces.
_ORDER = "/v1/orders/{id:[^/]+}"


def routes(host: Host) -> Iterable[web.RouteDef]:
    """What the service answers on this worker."""
    posting, queries = OrderEndpoint(host), OrderQueries(host)
    return (
        web.post("/v1/orders", posting.post),
        web.get(_ORDER, queries.order),
        web.get(f"{_ORDER}/validated", queries.validated),
    )
