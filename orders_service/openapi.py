"""OpenAPI description of the orders service."""

from collections.abc import Mapping
from typing import Any

from orders_service.queries import UndecidedOrder
from runtime.http.openapi import ORDER_ID, TIMEOUT, body, problems, schemas_of
from schemas.api import NewOrder, OrderOutcome
from schemas.messages import Order

_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": (
        "For a body without an id: requests with the same key create one order. Printable text outside ASCII is "
        "accepted if encoded as UTF-8."
    ),
    "schema": {
        "type": "string",
        "pattern": "^[ -~]*[!-~][ -~]*$",
        "examples": ["7b7f2a3c-0f0e-4b8e-9d6c-0a1b2c3d4e5f"],
    },
}
_STALE_READ_HEADERS = {
    "X-Served-By": {
        "description": "`standby`: stale read from a standby replica, because the owner of the order is unavailable",
        "schema": {"type": "string", "enum": ["standby"]},
    },
    "Age": {
        "description": "With X-Served-By: maximum staleness of the standby replica, in seconds",
        "schema": {"type": "integer", "minimum": 0},
    },
}
_LOCATION = {"Location": {"description": "URL of the order", "schema": {"type": "string"}}}


def openapi() -> Mapping[str, Any]:
    """Returns paths and schemas."""
    return {"paths": _paths(), "components": {"schemas": schemas_of(NewOrder, Order, OrderOutcome, UndecidedOrder)}}


def _paths() -> Mapping[str, Any]:
    return {
        "/v1/orders": {
            "post": {
                "operationId": "postOrder",
                "summary": "Place an order",
                "description": "Idempotent with an id or an Idempotency-Key: repeated requests create one order.",
                "tags": ["orders"],
                "parameters": [_IDEMPOTENCY_KEY, TIMEOUT],
                "requestBody": {"required": True, **body(NewOrder)},
                "responses": {
                    "201": {"description": "The order is written to Kafka", "headers": _LOCATION, **body(Order)},
                    "200": {"description": "The order existed; its current state", "headers": _LOCATION} | body(Order),
                    **problems(400, 401, 409, 413, 415, 500, 502, 503),
                },
            },
        },
        "/v1/orders/{id}": {
            "get": {
                "operationId": "getOrder",
                "summary": "Get an order, waiting until it exists",
                "tags": ["orders"],
                "parameters": [ORDER_ID, TIMEOUT],
                "responses": {
                    "200": {
                        "description": "The current state of the order",
                        "headers": _STALE_READ_HEADERS,
                        **body(Order),
                    },
                    **problems(400, 401, 404, 500, 502, 503),
                },
            },
        },
        "/v1/orders/{id}/validated": {
            "get": {
                "operationId": "getValidatedOrder",
                "summary": "Get the outcome of an order, waiting until it is decided",
                "tags": ["orders"],
                "parameters": [ORDER_ID, TIMEOUT],
                "responses": {
                    "200": {
                        "description": "VALIDATED, FAILED or SHIPPED, with the verdicts",
                        "headers": _STALE_READ_HEADERS,
                        **body(OrderOutcome),
                    },
                    "504": {
                        "description": "Not decided at the timeout: state and verdicts so far",
                        **body(UndecidedOrder, "application/problem+json"),
                    },
                    **problems(400, 401, 404, 500, 502, 503),
                },
            },
        },
    }
