"""Spans of requests that a worker answers, and of those that it forwards to another one."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from runtime.model.traces import CURRENT
from runtime.tracing.spans import ORDER_ID, Kind, Span
from runtime.tracing.tracer import Tracer, context_of_request

TRACER: web.AppKey[Tracer | None] = web.AppKey("tracer")

# Probes and metrics are asked for all the time, and never by a client that follows its order.
_UNTRACED = frozenset({"/healthz", "/readyz", "/metrics", "/favicon.ico"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_DISCONNECTED = 499


def tracing(tracer: Tracer, services: Mapping[tuple[str, str], str]) -> Middleware:
    """Makes a span of each request, which continues the trace of the client (`traceparent`).

    Arguments:
        tracer: of the worker.
        services: by method and route, the service that answers it: two may share a route.
    """

    @web.middleware
    async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _UNTRACED:
            return await handler(request)
        resource = request.match_info.route.resource
        route = None if resource is None else resource.canonical
        method = request.method if request.method in _METHODS else "_OTHER"
        name = method if route is None else f"{method} {route}"
        service = services.get(("GET" if method == "HEAD" else method, route or ""))
        span = tracer.begin(name, context_of_request(request.headers), Kind.SERVER, service)
        token = CURRENT.set(span.context)
        status = _DISCONNECTED
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            CURRENT.reset(token)
            if span.context.sampled:
                _describe(span, request, method, route)
                span.attributes["http.response.status_code"] = status
                tracer.end(span, str(status) if status >= 500 else None)

    return trace


@asynccontextmanager
async def forwarded(request: web.Request, host: str) -> AsyncIterator[dict[str, str]]:
    """A span around a request to another worker. Yields the headers that continue its trace; none without tracing."""
    tracer, parent = request.app.get(TRACER), CURRENT.get()
    if tracer is None or parent is None:
        yield {}
        return
    resource = request.match_info.route.resource
    route = None if resource is None else resource.canonical
    span = tracer.begin(f"{request.method} {route}", parent, Kind.CLIENT)
    error: str | None = None
    try:
        yield span.context.values
    except BaseException as failure:
        error = type(failure).__name__
        raise
    finally:
        if span.context.sampled:
            _describe(span, request, request.method, route)
            span.attributes["server.address"] = host
            tracer.end(span, error)


def _describe(span: Span, request: web.Request, method: str, route: str | None) -> None:
    """Adds attributes (opentelemetry.io/docs/specs/semconv/http/http-spans). No query, which may hold anything."""
    span.attributes["http.request.method"] = method
    span.attributes["url.scheme"] = request.scheme
    span.attributes["url.path"] = request.path
    if route is not None:
        span.attributes["http.route"] = route
    if (route or "").startswith("/v1/orders/") and (order_id := request.match_info.get("id")):
        span.attributes[ORDER_ID] = order_id
