"""`GET /v1/portal/checkins/{orderNo}`: the check-ins of an order."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from portal_service.view import CHECK_INS_VIEW
from runtime.hosting import Host
from runtime.http.answers import HttpProblem, answer
from runtime.http.inputs import deadline_of, order_id_of
from runtime.http.openapi import ORDER_ID, TIMEOUT, body, problems, schemas_of
from runtime.http.routing import route_to_owner
from schemas.api import PortalCheckins


def routes(host: Host) -> Iterable[web.RouteDef]:
    """Returns the route."""

    async def check_ins(request: web.Request) -> web.StreamResponse:
        order_no, deadline = order_id_of(request, "orderNo"), deadline_of(request)
        read = partial(_check_ins, host, order_no)
        return await route_to_owner(request, host, CHECK_INS_VIEW, order_no, deadline, read)

    return (web.get("/v1/portal/checkins/{orderNo:[^/]+}", check_ins),)


async def _check_ins(host: Host, order_no: str) -> web.Response:
    found = host.read(CHECK_INS_VIEW, order_no)
    if found is None:
        raise HttpProblem(404, f"There is no check-in for an order {order_no!r} (yet).")
    return answer(found)


def openapi() -> Mapping[str, Any]:
    """Returns path and schemas."""
    return {
        "paths": {
            "/v1/portal/checkins/{orderNo}": {
                "get": {
                    "operationId": "getCheckInsOfOrder",
                    "summary": "Get the check-ins of an order and their status",
                    "tags": ["portal"],
                    "parameters": [{**ORDER_ID, "name": "orderNo"}, TIMEOUT],
                    "responses": {
                        "200": {"description": "The check-ins that have arrived", **body(PortalCheckins)},
                        **problems(400, 401, 404, 500, 502, 503),
                    },
                }
            }
        },
        "components": {"schemas": schemas_of(PortalCheckins)},
    }
