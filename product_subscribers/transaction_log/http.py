"""`GET /v1/product-log/{code}`: the changes of a product."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

from product_subscribers.transaction_log.store import ProductLogStore
from runtime.hosting import Host
from runtime.http.answers import HttpProblem, answer
from runtime.http.inputs import code_of
from runtime.http.openapi import CODE, body, problems, schemas_of
from schemas.api import ProductLog

PATH = "/v1/product-log"


def routes(log: ProductLogStore) -> Callable[[Host], Iterable[web.RouteDef]]:
    """Returns the factory of the route."""

    async def entries(request: web.Request) -> web.Response:
        code = code_of(request)
        found = await log.latest(code)
        if not found:
            raise HttpProblem(404, f"No change of a product {code!r} is in the log (yet).")
        return answer(ProductLog(code=code, entries=found))

    return lambda _: (web.get(f"{PATH}/{{code:[^/]+}}", entries),)


def openapi() -> Mapping[str, Any]:
    """Returns path and schemas."""
    return {
        "paths": {
            f"{PATH}/{{code}}": {
                "get": {
                    "operationId": "getProductLog",
                    "summary": "Get the latest changes of a product",
                    "tags": ["products"],
                    "parameters": [CODE],
                    "responses": {
                        "200": {"description": "The changes logged so far", **body(ProductLog)},
                        **problems(400, 404, 500, 503),
                    },
                }
            }
        },
        "components": {"schemas": schemas_of(ProductLog)},
    }
