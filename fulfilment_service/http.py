"""`GET /v1/orders/{id}/fulfilment`: progress of an order, and its missing prerequisites."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from fulfilment_service.gate import missing
from fulfilment_service.state import PROGRESS
from runtime.hosting import Host
from runtime.http.answers import HttpProblem, answer
from runtime.http.inputs import deadline_of, order_id_of
from runtime.http.openapi import ORDER_ID, TIMEOUT, body, problems, schemas_of
from runtime.http.routing import route_to_owner
from schemas.api import FulfilmentStatus
from schemas.messages import Need


def routes(needs: tuple[Need, ...], currency: str) -> Callable[[Host], Iterable[web.RouteDef]]:
    """Returns the factory of the route, for a gate with these prerequisites and this currency."""

    def build(host: Host) -> Iterable[web.RouteDef]:
        async def status(request: web.Request) -> web.StreamResponse:
            order_id, deadline = order_id_of(request), deadline_of(request)
            read = partial(_status, host, order_id, needs, currency)
            return await route_to_owner(request, host, PROGRESS, order_id, deadline, read)

        return (web.get("/v1/orders/{id:[^/]+}/fulfilment", status),)

    return build


async def _status(host: Host, order_id: str, needs: tuple[Need, ...], currency: str) -> web.Response:
    progress = host.read(PROGRESS, order_id)
    if progress is None:
        raise HttpProblem(404, f"No event of an order {order_id!r} has arrived (yet).")
    return answer(
        FulfilmentStatus(
            order_id=order_id,
            fulfilled=progress.fulfilled,
            needed=needs,
            missing=missing(progress, needs, currency),
            state=progress.state,
            value=progress.value,
            currency=currency,
            paid=progress.sum(currency),
            other_currencies=progress.received.others(currency),
            ignored_payments=progress.received.ignored,
        )
    )


def openapi() -> Mapping[str, Any]:
    """Returns paths and schemas."""
    return {
        "paths": {
            "/v1/orders/{id}/fulfilment": {
                "get": {
                    "operationId": "getFulfilment",
                    "summary": "Get the progress of an order and its missing prerequisites",
                    "tags": ["fulfilment"],
                    "parameters": [ORDER_ID, TIMEOUT],
                    "responses": {
                        "200": {"description": "The current progress", **body(FulfilmentStatus)},
                        **problems(400, 401, 404, 500, 502, 503),
                    },
                }
            }
        },
        "components": {"schemas": schemas_of(FulfilmentStatus)},
    }
