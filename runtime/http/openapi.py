"""The OpenAPI 3.1 document: every service's part and the operational routes, with schemas made from the models."""

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
    "description": "Milliseconds to wait, 0 for not at all; more than 60,000 is taken as 60,000",
    "schema": {"type": "integer", "minimum": 0, "default": 10_000},
}

# A mark of a worker that is none, a body nobody asked for, an expectation nobody meets, a fault, too much in hand.
_ANYWHERE = (401, 413, 417, 500, 503)
_REF = "#/components/schemas/{model}"


def schemas_of(*models: type[Message]) -> dict[str, Any]:
    """JSON Schemas of the models and of all they contain, by name, as they are written to the wire."""
    _, document = models_json_schema([(m, "serialization") for m in models], by_alias=True, ref_template=_REF)
    return dict(document["$defs"])


def body(model: type[Message], media_type: str = "application/json") -> dict[str, Any]:
    """The `content` of a request or an answer."""
    return {"content": {media_type: {"schema": {"$ref": _REF.format(model=model.__name__)}}}}


def problems(*statuses: int) -> dict[str, Any]:
    """Answers that are problems, by status."""
    return {str(s): {"description": title_of(s), **body(Problem, "application/problem+json")} for s in statuses}


def document(hosted: Iterable[ServiceDefinition]) -> dict[str, Any]:
    """The whole document. Raises `ValueError` if two services describe the same path or schema differently."""
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
            "description": "Any worker answers for any order. Names that a client gives or refers to are "
            "in Unicode form NFC. Errors are problems as in RFC 9457.",
        },
        "paths": {path: _everywhere(operations) for path, operations in paths.items()},
        "components": {"schemas": schemas},
    }


def _everywhere(operations: Mapping[str, Any]) -> dict[str, Any]:
    """The operations of a path, with what surrounds every handler of a worker may answer in its place."""
    return {
        method: {**operation, "responses": {**problems(*_ANYWHERE), **operation["responses"]}}
        for method, operation in operations.items()
    }


def _merge(into: dict[str, Any], part: Mapping[str, Any]) -> None:
    for name, described in part.items():
        if into.setdefault(name, described) != described:
            raise ValueError(f"{name} is described twice, differently")


def _operation(name: str, summary: str, media_type: str, **more: Any) -> dict[str, Any]:
    described = {"description": summary, "content": {media_type: {}}}
    responses = {"200": described, **more}
    return {"get": {"operationId": name, "summary": summary, "tags": ["operation"], "responses": responses}}


_OPERATIONAL: Mapping[str, Any] = {
    "/healthz": _operation("getHealth", "The process lives", "application/json"),
    "/readyz": _operation(
        "getReadiness",
        "The worker is ready for requests, and what that stands on",
        "application/json",
        **{"503": {"description": "Not ready (yet): what is missing", "content": {"application/json": {}}}},
    ),
    "/metrics": _operation("getMetrics", "Metrics, for Prometheus", "text/plain"),
    "/openapi.json": _operation("getOpenApi", "This document", "application/json"),
    "/asyncapi.json": _operation("getAsyncApi", "The topics that this worker reads and writes", "application/json"),
    "/docs": _operation("getDocs", "This document, for people", "text/html"),
}
