"""`GET /v1/monitoring/products`: totals over all products."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from product_subscribers.monitoring.counts import ALL
from product_subscribers.monitoring.state import TOTALS
from runtime.hosting import Host
from runtime.http.answers import answer
from runtime.http.inputs import deadline_of
from runtime.http.openapi import TIMEOUT, body, problems, schemas_of
from runtime.http.routing import route_to_owner
from schemas.api import ProductTotals

PATH = "/v1/monitoring/products"


def routes(host: Host) -> Iterable[web.RouteDef]:
    """Returns the route."""

    async def totals(request: web.Request) -> web.StreamResponse:
        return await route_to_owner(request, host, TOTALS, ALL, deadline_of(request), partial(_totals, host))

    return (web.get(PATH, totals),)


async def _totals(host: Host) -> web.Response:
    found = host.read(TOTALS, ALL)
    return answer(ProductTotals() if found is None else found)


def openapi() -> Mapping[str, Any]:
    """Returns path and schemas."""
    return {
        "paths": {
            PATH: {
                "get": {
                    "operationId": "getProductTotals",
                    "summary": "Get totals over all products",
                    "tags": ["products"],
                    "parameters": [TIMEOUT],
                    "responses": {
                        "200": {"description": "The current totals", **body(ProductTotals)},
                        **problems(400, 401, 500, 502, 503),
                    },
                }
            }
        },
        "components": {"schemas": schemas_of(ProductTotals)},
    }
