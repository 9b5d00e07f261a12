"""Generates the OpenAPI 3.1 document from the endpoints of services, the operational ones and the message models."""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from runtime.hosting import Answer, Endpoint, OutboundEvent, Parameter, ServiceDefinition
from runtime.http.answers import PROBLEM_JSON, title_of
from runtime.http.inputs import TIMEOUT
from runtime.http.operational import OPERATIONAL
from schemas.api import Problem
from schemas.identifiers import Code, OrderId
from schemas.wire import Message

_COMMON_STATUSES = (401, 403, 413, 417, 500, 503)
"""Any route may answer: 401 invalid worker signature, 403 another name than the worker's, 413 body too large, 417
unsupported Expect, 500 internal error,
503 overloaded."""

_REF = "#/components/schemas/{model}"


def document(hosted: Iterable[ServiceDefinition]) -> dict[str, Any]:
    """The document of these services.

    Raises `ValueError` if two have the same operation, operationId, or name of different schemas.
    """
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {
        "OrderId": TypeAdapter(OrderId).json_schema(),
        "Code": TypeAdapter(Code).json_schema(),
        **_schemas(Problem),
    }
    hosted = tuple(hosted)
    names: dict[str, Endpoint] = {}
    for endpoints in (OPERATIONAL, *(h.endpoints for h in hosted)):
        for endpoint in endpoints:
            operations = paths.setdefault(endpoint.path, {})
            method, described = endpoint.method.lower(), _operation(endpoint)
            operations[method] = _merged(operations[method], described, endpoint) if method in operations else described
            if names.setdefault(endpoint.name, endpoint) is not endpoint:
                other = names[endpoint.name]
                both = f"{other.method} {other.path} and {endpoint.method} {endpoint.path}"
                raise ValueError(f"OpenAPI: {both} are both called {endpoint.name}; rename one")
        for name, schema in _schemas(*_models(endpoints)).items():
            if schemas.setdefault(name, schema) != schema:
                raise ValueError(f"OpenAPI: two services describe {name} differently; make them share one description")
    events = [event for h in hosted for event in h.events]
    schemas |= _schemas(*dict.fromkeys(event.body for event in events))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Faust Orders",
            "version": version("faust-orders"),
            "description": "Any worker answers for any order. Names given by clients must be in Unicode form NFC. "
            "Errors are problem details (RFC 9457).",
        },
        "paths": paths,
        **({"webhooks": {event.name: {"post": _webhook(event)} for event in events}} if events else {}),
        "components": {"schemas": schemas},
    }


_WHEN = "x-when"
"""Extension: the query parameter with which an endpoint answers in place of another."""


def _merged(one: dict[str, Any], other: dict[str, Any], endpoint: Endpoint) -> dict[str, Any]:
    """The operation of two endpoints that share a method and path, as they are chosen by a query parameter.

    It has the name of the one that answers without the parameter.
    """
    if (_WHEN in one) == (_WHEN in other):
        raise ValueError(f"OpenAPI: two services answer {endpoint.method} {endpoint.path}; only one can")
    special, default = (one, other) if _WHEN in one else (other, one)
    lines = [default.get("description"), f"With `{special[_WHEN]}`: {special['summary']}.", special.get("description")]
    parameters = {p["name"]: p for p in (*special.get("parameters", ()), *default.get("parameters", ()))}
    responses = {**special["responses"], **default["responses"]}
    for status in special["responses"].keys() & default["responses"].keys():
        both = [operation["responses"][status] for operation in (default, special)]
        headers = {**both[1].get("headers", {}), **both[0].get("headers", {})}
        if both[0]["content"] != both[1]["content"]:
            raise ValueError(f"OpenAPI: {endpoint.method} {endpoint.path} answers {status} in two ways; align them")
        responses[status] = {**both[0], **({"headers": headers} if headers else {})}
    return {
        **default,
        "description": " ".join(filter(None, lines)),
        "parameters": list(parameters.values()),
        "responses": responses,
    }


def _models(endpoints: Iterable[Endpoint]) -> Iterable[type[Message]]:
    """The models of bodies, each once."""
    bodies = (
        body for e in endpoints for body in (e.body, *(b for a in e.answers.values() for b in (a.body, a.preferred)))
    )
    return dict.fromkeys(body for body in bodies if body is not None)


def _schemas(*models: type[Message]) -> dict[str, Any]:
    """JSON Schemas of the models and of the models that they contain, by name, in their wire format."""
    _, described = models_json_schema([(m, "serialization") for m in models], by_alias=True, ref_template=_REF)
    return dict(described.get("$defs", {}))


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    parameters = [*endpoint.parameters, *([TIMEOUT] if endpoint.routed else ())]
    body = endpoint.body
    return {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        **({"description": endpoint.description} if endpoint.description else {}),
        "tags": [endpoint.tag],
        **({_WHEN: endpoint.when} if endpoint.when else {}),
        **({"parameters": [_parameter(p) for p in parameters]} if parameters else {}),
        **({"requestBody": {"required": True, **_content(body)}} if body is not None else {}),
        "responses": {
            **{str(status): _answer(answer) for status, answer in endpoint.answers.items()},
            **{str(status): _problem(status) for status in sorted(_problems(endpoint) - endpoint.answers.keys())},
        },
    }


def _webhook(event: OutboundEvent) -> dict[str, Any]:
    return {
        "summary": (event.body.__doc__ or "").partition("\n")[0],
        "tags": [event.tag],
        "parameters": [{**_parameter(header), "required": True} for header in event.headers],
        "requestBody": {"required": True, **_content(event.body)},
        "responses": {
            "2XX": {"description": "The event is accepted. It is not delivered again"},
            "410": {"description": "No more events are wanted: this one is dead-lettered at once"},
            "default": {"description": "The event is delivered again later"},
        },
    }


def _problems(endpoint: Endpoint) -> set[int]:
    """The statuses of an endpoint that are answered with a problem."""
    statuses = {*_COMMON_STATUSES, *endpoint.problems}
    if endpoint.parameters or endpoint.routed:
        statuses.add(400)
    if any(p.place == "path" for p in endpoint.parameters):
        statuses.add(404)
    if endpoint.body is not None:
        statuses |= {400, 415}
    if endpoint.routed:
        statuses.add(502)
    return statuses


def _problem(status: int) -> dict[str, Any]:
    return {"description": title_of(status), **_content(Problem, PROBLEM_JSON)}


def _answer(answer: Answer) -> dict[str, Any]:
    headers = {h.name: {"description": h.description, "schema": h.schema} for h in answer.headers}
    return {
        "description": answer.description,
        **({"headers": headers} if headers else {}),
        **({} if answer.media_type is None else _content(answer.body, answer.media_type, answer.preferred)),
    }


def _content(
    model: type[Message] | None, media_type: str = "application/json", other: type[Message] | None = None
) -> dict[str, Any]:
    """The `content` of a request or response, which is one of two models; without a model, of a media type alone."""
    schemas = [{"$ref": _REF.format(model=one.__name__)} for one in (model, other) if one is not None]
    schema: Mapping[str, Any] = {}
    if schemas:
        schema = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    return {"content": {media_type: schema}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        **({"required": True} if parameter.place == "path" else {}),
        **({"description": parameter.description} if parameter.description else {}),
        "schema": parameter.schema,
    }
