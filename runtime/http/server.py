"""A worker's HTTP application: the endpoints of its services, operational endpoints, and middleware."""

import json
import re
from collections.abc import Sequence
from functools import partial

from aiohttp import HttpVersion11, web

from runtime.hosting import Endpoint, Handler, Host, ServiceDefinition
from runtime.http.admission import IN_FLIGHT, admission, prepare_admission
from runtime.http.answers import problem
from runtime.http.asyncapi import document as asyncapi_document
from runtime.http.fast_path.routes import FAST_PATH, FastPath
from runtime.http.forwarding import forwarding_session
from runtime.http.host_names import host_check
from runtime.http.inputs import too_large
from runtime.http.metrics import metrics
from runtime.http.openapi import document
from runtime.http.operational import API_DOCUMENTS, OPERATIONAL, no_icon
from runtime.http.problems import problems
from runtime.http.signatures import signature_check
from runtime.http.tracing import TRACER, tracing
from runtime.tracing.tracer import Tracer


def application(host: Host, hosted: Sequence[ServiceDefinition], tracer: Tracer | None = None) -> web.Application:
    """The application of a worker with these services, for `runner.Runner`. Requests have spans with a `tracer`.

    Raises `ValueError` if the services' parts of the OpenAPI document contradict each other.
    """
    keys = host.settings.worker_keys
    services = {(endpoint.method, endpoint.path): h.service.name for h in hosted for endpoint in h.endpoints}
    traces = () if tracer is None else (tracing(tracer, services),)
    app = web.Application(
        client_max_size=host.settings.max_body_bytes,
        middlewares=(
            *traces,
            metrics,
            admission(host),
            problems,
            *host_check(host.settings),
            *((signature_check(keys),) if keys else ()),
        ),
    )
    app[TRACER] = tracer
    prepare_admission(app, host)
    app.cleanup_ctx.append(forwarding_session)
    app[API_DOCUMENTS] = {
        "/openapi.json": json.dumps(document(hosted)).encode(),
        "/asyncapi.json": json.dumps(asyncapi_document(hosted, host.settings)).encode(),
    }
    endpoints = tuple(e for endpoints in (*(h.endpoints for h in hosted), OPERATIONAL) for e in endpoints)
    if host.settings.http_fast_path and tracer is None:  # the fast path has no spans
        app[FAST_PATH] = FastPath(host, endpoints, app[IN_FLIGHT])
        app.on_cleanup.append(app[FAST_PATH].close)
    operations: dict[tuple[str, str], list[Endpoint]] = {}
    for endpoint in endpoints:
        operations.setdefault((endpoint.method, endpoint.path), []).append(endpoint)
    app.router.add_routes(_route(host, same) for same in operations.values())
    app.router.add_get("/favicon.ico", no_icon, expect_handler=_expect)
    return app


def _route(host: Host, endpoints: Sequence[Endpoint]) -> web.RouteDef:
    """The route of endpoints of one method and path. A parameter in the path is any text without a slash, which is
    percent-encoded there: aiohttp's own `{name}` would exclude braces."""
    method, path = endpoints[0].method, re.sub(r"{(\w+)}", r"{\1:[^/]+}", endpoints[0].path)
    add = web.get if method == "GET" else partial(web.route, method)
    handler = endpoints[0].handler if len(endpoints) == 1 else _selecting(endpoints)
    return add(path, partial(handler, host), expect_handler=_expect)


def _selecting(endpoints: Sequence[Endpoint]) -> Handler:
    """A handler that calls the first endpoint whose query parameter `when` a request has, or else the one without."""
    *chosen, default = sorted(endpoints, key=lambda e: e.when is None)

    async def handle(host: Host, request: web.Request) -> web.StreamResponse:
        endpoint = next((e for e in chosen if e.when in request.query), default)
        return await endpoint.handler(host, request)

    return handle


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Handles `Expect: 100-continue`: lets the client send its body, or answers 413 if it is too large."""
    if request.version < HttpVersion11:
        return None  # an HTTP/1.0 client does not know status 100
    if request.headers["Expect"].lower() != "100-continue":
        return problem(417, "The only expectation that this server meets is 100-continue.")
    if (request.content_length or 0) > request.client_max_size:
        response = too_large(request.client_max_size).response()
        response.force_close()  # a body that the client sends nevertheless must not be parsed as the next request
        return response
    # Relies on `writer`, and on its `output_size`, by which aiohttp decides whether an error can still be answered.
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
    return None
