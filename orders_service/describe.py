"""The orders service's part of the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

from orders_service.queries import Undecided
from runtime.http.openapi import ORDER_ID, TIMEOUT, body, problems, schemas_of
from schemas.api import NewOrder, OrderOutcome
from schemas.messages import Order

_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": (
        "For a body without an id: requests with the same key are about the same order. Other text than ASCII is taken "
        "too, if it is printable and comes as UTF-8."
    ),
    "schema": {
        "type": "string",
        "pattern": "^[ -~]*[!-~][ -~]*$",
        "examples": ["7b7f2a3c-0f0e-4b8e-9d6c-0a1b2c3d4e5f"],
    },
}
_FROM_COPY = {
    "X-Served-By": {
        "description": "`standby`: the worker that holds the order does not answer; this is from a copy of its state",
        "schema": {"type": "string", "enum": ["standby"]},
    },
    "Age": {
        "description": "With X-Served-By: for how many seconds the copy may have missed changes of the order",
        "schema": {"type": "integer", "minimum": 0},
    },
}
_LOCATION = {"Location": {"description": "Where the order is", "schema": {"type": "string"}}}


def openapi() -> Mapping[str, Any]:
    """Paths and schemas."""
    return {"paths": _paths(), "components": {"schemas": schemas_of(NewOrder, Order, OrderOutcome, Undecided)}}


def _paths() -> Mapping[str, Any]:
    return {
        "/v1/orders": {
            "post": {
                "operationId": "postOrder",
                "summary": "Place an order",
                "description": "With an id or an Idempotency-Key the request may be repeated safely: one order.",
                "tags": ["orders"],
                "parameters": [_IDEMPOTENCY_KEY, TIMEOUT],
                "requestBody": {"required": True, **body(NewOrder)},
                "responses": {
                    "201": {"description": "Kafka has the order", "headers": _LOCATION, **body(Order)},
                    "200": {"description": "It had it already; the order as it is now", "headers": _LOCATION}
                    | body(Order),
                    **problems(400, 401, 409, 413, 415, 500, 502, 503),
                },
            },
        },
        "/v1/orders/{id}": {
            "get": {
                "operationId": "getOrder",
                "summary": "An order, as soon as it is there",
                "tags": ["orders"],
                "parameters": [ORDER_ID, TIMEOUT],
                "responses": {
                    "200": {"description": "The order as it is now", "headers": _FROM_COPY, **body(Order)},
                    **problems(400, 401, 404, 500, 502, 503),
                },
            },
        },
        "/v1/orders/{id}/validated": {
            "get": {
                "operationId": "getValidatedOrder",
                "summary": "What became of an order, as soon as that is decided",
                "tags": ["orders"],
                "parameters": [ORDER_ID, TIMEOUT],
                "responses": {
                    "200": {
                        "description": "VALIDATED, FAILED or SHIPPED, with verdicts",
                        "headers": _FROM_COPY,
                        **body(OrderOutcome),
                    },
                    "504": {
                        "description": "Not decided yet: the state and the verdicts so far",
                        **body(Undecided, "application/problem+json"),
                    },
                    **problems(400, 401, 404, 500, 502, 503),
                },
            },
        },
    }
