"""HTTP routes of the orders service."""

from collections.abc import Iterable

from aiohttp import web

from orders_service.openapi import openapi
from orders_service.post import OrderEndpoint
from orders_service.queries import OrderQueries
from runtime.hosting import Host

__all__ = ["openapi", "routes"]

# Any character except a slash, which is percent-encoded. aiohttp's `{id}` would exclude braces.
_ORDER = "/v1/orders/{id:[^/]+}"


def routes(host: Host) -> Iterable[web.RouteDef]:
    """Returns the routes of the service on this worker."""
    endpoint, queries = OrderEndpoint(host), OrderQueries(host)
    return (
        web.post("/v1/orders", endpoint.post),
        web.get(_ORDER, queries.order),
        web.get(f"{_ORDER}/validated", queries.validated),
    )
