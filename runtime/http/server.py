"""A worker's HTTP application: the routes of its services, operational routes, and middleware."""

from collections.abc import Iterable, Sequence

from aiohttp import HttpVersion11, web

from runtime.hosting import Host, ServiceDefinition
from runtime.http.admission import admission, prepare_admission
from runtime.http.answers import problem
from runtime.http.forwarding import forwarding_session
from runtime.http.inputs import too_large
from runtime.http.metrics import metrics
from runtime.http.operational import operational_routes
from runtime.http.problems import problems
from runtime.http.signatures import signature_check


def application(host: Host, hosted: Sequence[ServiceDefinition]) -> web.Application:
    """The application of a worker with these services, for `connections.Runner`.

    Raises `ValueError` if the services' parts of the OpenAPI document contradict each other.
    """
    keys = host.settings.worker_keys
    app = web.Application(
        client_max_size=host.settings.max_body_bytes,
        middlewares=(metrics, admission(host), problems, *((signature_check(keys),) if keys else ())),
    )
    prepare_admission(app)
    app.cleanup_ctx.append(forwarding_session)
    for routes in (h.routes(host) for h in hosted if h.routes is not None):
        _mount(app, routes)
    _mount(app, operational_routes(host, hosted))
    return app


def _mount(app: web.Application, routes: Iterable[web.RouteDef]) -> None:
    app.router.add_routes(
        web.RouteDef(r.method, r.path, r.handler, {**r.kwargs, "expect_handler": _expect}) for r in routes
    )


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
