"""Generates the OpenAPI 3.1 document from each service's part, the operational routes and the message models."""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from runtime.hosting import ServiceDefinition
from runtime.http.answers import title_of
from schemas.api import Problem
from schemas.identifiers import Code, OrderId
from schemas.wire import Message

ORDER_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "Percent-encoded: a slash in the id is %2F",
    "schema": {"$ref": "#/components/schemas/OrderId"},
}
CODE = {
    "name": "code",
    "in": "path",
    "required": True,
    "description": "Percent-encoded: a slash in the code is %2F",
    "schema": {"$ref": "#/components/schemas/Code"},
}
TIMEOUT = {
    "name": "timeout",
    "in": "query",
    "description": "Milliseconds to wait; 0 does not wait, more than 60,000 counts as 60,000",
    "schema": {"type": "integer", "minimum": 0, "default": 10_000},
}

_COMMON_STATUSES = (401, 413, 417, 500, 503)
"""Any route may answer: 401 invalid worker signature, 413 body too large, 417 unsupported Expect, 500 internal error,
503 overloaded."""

_REF = "#/components/schemas/{model}"


def schemas_of(*models: type[Message]) -> dict[str, Any]:
    """JSON Schemas of the models and of the models that they contain, by name, in their wire format."""
    _, document = models_json_schema([(m, "serialization") for m in models], by_alias=True, ref_template=_REF)
    return dict(document["$defs"])


def body(model: type[Message], media_type: str = "application/json") -> dict[str, Any]:
    """The `content` of a request or response."""
    return {"content": {media_type: {"schema": {"$ref": _REF.format(model=model.__name__)}}}}


def problems(*statuses: int) -> dict[str, Any]:
    """Problem responses by status."""
    return {str(s): {"description": title_of(s), **body(Problem, "application/problem+json")} for s in statuses}


def document(hosted: Iterable[ServiceDefinition]) -> dict[str, Any]:
    """The document of these services. Raises `ValueError` if two describe the same path or schema differently."""
    paths: dict[str, Any] = {}
    _merge(paths, _OPERATIONAL)
    named = {"OrderId": TypeAdapter(OrderId).json_schema(), "Code": TypeAdapter(Code).json_schema()}
    schemas: dict[str, Any] = {**named, **schemas_of(Problem)}
    for part in (h.openapi() for h in hosted if h.openapi is not None):
        _merge(paths, part.get("paths", {}))
        _merge(schemas, part.get("components", {}).get("schemas", {}))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Faust Orders",
            "version": version("faust-orders"),
            "description": "Any worker answers for any order. Names given by clients must be in Unicode form NFC. "
            "Errors are problem details (RFC 9457).",
        },
        "paths": {path: _with_common_responses(operations) for path, operations in paths.items()},
        "components": {"schemas": schemas},
    }


def _with_common_responses(operations: Mapping[str, Any]) -> dict[str, Any]:
    """The operations of a path, with the responses that middleware may give on any route."""
    return {
        method: {**operation, "responses": {**problems(*_COMMON_STATUSES), **operation["responses"]}}
        for method, operation in operations.items()
    }


def _merge(into: dict[str, Any], part: Mapping[str, Any]) -> None:
    for name, described in part.items():
        if into.setdefault(name, described) != described:
            raise ValueError(f"OpenAPI: two services describe {name} differently; make them share one description")


def _operation(name: str, summary: str, media_type: str, **more: Any) -> dict[str, Any]:
    described = {"description": summary, "content": {media_type: {}}}
    responses = {"200": described, **more}
    return {"get": {"operationId": name, "summary": summary, "tags": ["operation"], "responses": responses}}


_OPERATIONAL: Mapping[str, Any] = {
    "/healthz": _operation("getHealth", "Liveness: the process answers", "application/json"),
    "/readyz": _operation(
        "getReadiness",
        "Readiness: whether the worker accepts requests, with its conditions",
        "application/json",
        **{"503": {"description": "Not ready: unmet conditions", "content": {"application/json": {}}}},
    ),
    "/metrics": _operation("getMetrics", "Metrics in Prometheus format", "text/plain"),
    "/openapi.json": _operation("getOpenApi", "OpenAPI document", "application/json"),
    "/asyncapi.json": _operation("getAsyncApi", "AsyncAPI document of this worker's services", "application/json"),
    "/docs": _operation("getDocs", "Interactive API documentation", "text/html"),
}
