"""`GET /v1/product-log/{code}`: what has happened to a product."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

from product_subscribers.transaction_log.store import Log
from runtime.hosting import Host
from runtime.http.answers import HttpProblem, answer
from runtime.http.inputs import code_of
from runtime.http.openapi import CODE, body, problems, schemas_of
from schemas.api import ProductLog

PATH = "/v1/product-log"


def routes(log: Log) -> Callable[[Host], Iterable[web.RouteDef]]:
    """The route."""

    async def entries(request: web.Request) -> web.Response:
        code = code_of(request)
        found = await log.of(code)
        if not found:
            raise HttpProblem(404, f"Nothing was logged of a product {code!r} (yet).")
        return answer(ProductLog(code=code, entries=found))

    return lambda _: (web.get(f"{PATH}/{{code:[^/]+}}", entries),)


def openapi() -> Mapping[str, Any]:
    """Path and schemas."""
    return {
        "paths": {
            f"{PATH}/{{code}}": {
                "get": {
                    "operationId": "getProductLog",
                    "summary": "What has happened to a product: its last changes",
                    "tags": ["products"],
                    "parameters": [CODE],
                    "responses": {
                        "200": {"description": "As far as it is logged now", **body(ProductLog)},
                        **problems(400, 404, 500, 503),
                    },
                }
            }
        },
        "components": {"schemas": schemas_of(ProductLog)},
    }
