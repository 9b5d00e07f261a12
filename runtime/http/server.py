"""A worker's HTTP application: every service's routes, the operational ones, and what surrounds them all."""

from collections.abc import Iterable, Sequence

from aiohttp import HttpVersion11, web

from runtime.hosting import Host, ServiceDefinition
from runtime.http.admission import admission, prepare
from runtime.http.answers import problem
from runtime.http.forwarding import client
from runtime.http.inputs import too_large
from runtime.http.metrics import metrics
from runtime.http.operational import operational_routes
from runtime.http.problems import problems
from runtime.http.signatures import guard


def application(host: Host, hosted: Sequence[ServiceDefinition]) -> web.Application:
    """The application of a worker that runs these services; to be run by `connections.Runner`.

    Raises `ValueError` if the services' parts of the OpenAPI document contradict each other.
    """
    keys = host.settings.worker_keys
    app = web.Application(
        client_max_size=host.settings.max_body_bytes,
        middlewares=(metrics, admission(host), problems, *((guard(keys),) if keys else ())),
    )
    prepare(app)
    app.cleanup_ctx.append(client)
    for routes in (h.routes(host) for h in hosted if h.routes is not None):
        _mount(app, routes)
    _mount(app, operational_routes(host, hosted))
    return app


def _mount(app: web.Application, routes: Iterable[web.RouteDef]) -> None:
    app.router.add_routes(
        web.RouteDef(r.method, r.path, r.handler, {**r.kwargs, "expect_handler": _expect}) for r in routes
    )


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Says whether a client that asks first (`Expect: 100-continue`) may send its body: not if it is too large."""
    if request.version < HttpVersion11:
        return None  # it would not know the answer
    if request.headers["Expect"].lower() != "100-continue":
        return problem(417, "The only expectation that can be met here is 100-continue.")
    if (request.content_length or 0) > request.client_max_size:
        response = too_large(request.client_max_size).response()
        response.force_close()  # the body that was not asked for must not be taken for the next request
        return response
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # That was no part of the answer: an error page may still follow it.
    request.writer.output_size = 0
    return None
