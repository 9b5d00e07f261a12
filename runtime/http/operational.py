"""Operational endpoints of every worker: health, readiness, metrics and API documents."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from importlib.resources import files

from aiohttp import web
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from runtime.hosting import Answer, Endpoint, Handler, Host

API_DOCUMENTS = web.AppKey("OpenAPI and AsyncAPI documents as JSON, by path", Mapping[str, bytes])

_DOCS_PAGE = (files(__package__) / "docs.html").read_bytes()

# The page loads nothing from other origins, so the policy forbids it.
_DOCS_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


async def _healthz(_host: Host, _: web.Request) -> web.Response:
    return _json_response(b'{"alive":true}')


async def _readyz(host: Host, _: web.Request) -> web.Response:
    readiness = host.readiness()
    return _json_response(json.dumps(readiness, default=str).encode(), 200 if readiness.get("ready") else 503)


async def _metrics(_: Host, request: web.Request) -> web.Response:
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    collected = _Collected(REGISTRY.collect())  # here: what it reads belongs to the event loop
    # Three quarters of the time: in a thread it delays the event loop by a few milliseconds at a time, not by all.
    body = await asyncio.to_thread(encode, collected)
    return web.Response(body=body, headers={"Content-Type": content_type})


class _Collected:
    """Metrics that were collected before: what an encoder needs of a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> list[Metric]:
        return self._families


async def _api_document(_: Host, request: web.Request) -> web.Response:
    return _json_response(request.app[API_DOCUMENTS][request.path])


async def _docs(_host: Host, _: web.Request) -> web.Response:
    return web.Response(body=_DOCS_PAGE, headers=_DOCS_HEADERS)


async def no_icon(_: web.Request) -> web.Response:
    """An empty response for the icon that browsers request."""
    return web.Response(status=204)


def _json_response(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json"})


def _endpoint(
    path: str,
    handler: Handler,
    name: str,
    summary: str,
    media_type: str = "application/json",
    *,
    further: Mapping[int, Answer] | None = None,
) -> Endpoint:
    answers = {200: Answer(summary, media_type=media_type), **(further or {})}
    return Endpoint("GET", path, handler, name, summary, "operation", answers)


OPERATIONAL = (
    _endpoint("/healthz", _healthz, "getHealth", "Liveness: the process answers"),
    _endpoint(
        "/readyz",
        _readyz,
        "getReadiness",
        "Readiness: whether the worker accepts requests, with its conditions",
        further={503: Answer("Not ready: unmet conditions")},
    ),
    _endpoint("/metrics", _metrics, "getMetrics", "Metrics in Prometheus format", "text/plain"),
    _endpoint("/openapi.json", _api_document, "getOpenApi", "OpenAPI document"),
    _endpoint("/asyncapi.json", _api_document, "getAsyncApi", "AsyncAPI document of this worker's services"),
    _endpoint("/docs", _docs, "getDocs", "Interactive API documentation", "text/html"),
)
