"""Operational routes of every worker: health, readiness, metrics and API documents."""

import json
from collections.abc import Iterable, Sequence
from importlib.resources import files

from aiohttp import web
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from runtime.hosting import Host, ServiceDefinition
from runtime.http.asyncapi import document as asyncapi_document
from runtime.http.openapi import document

# The page loads nothing from other origins, so the policy forbids it.
_DOCS_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


def operational_routes(host: Host, hosted: Sequence[ServiceDefinition]) -> Iterable[web.RouteDef]:
    """The operational routes, and an empty response for the icon that browsers request."""
    openapi = _json(document(hosted))
    asyncapi = _json(asyncapi_document(hosted, host.settings))
    docs = (files(__package__) / "docs.html").read_bytes()

    async def healthz(_: web.Request) -> web.Response:
        return _answer(b'{"alive":true}')

    async def readyz(_: web.Request) -> web.Response:
        readiness = host.readiness()
        return _answer(_json(readiness), 200 if readiness.get("ready") else 503)

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(REGISTRY), headers={"Content-Type": content_type})

    async def openapi_json(_: web.Request) -> web.Response:
        return _answer(openapi)

    async def asyncapi_json(_: web.Request) -> web.Response:
        return _answer(asyncapi)

    async def docs_page(_: web.Request) -> web.Response:
        return web.Response(body=docs, headers=_DOCS_HEADERS)

    async def favicon(_: web.Request) -> web.Response:
        return web.Response(status=204)

    return (
        web.get("/healthz", healthz),
        web.get("/readyz", readyz),
        web.get("/metrics", metrics),
        web.get("/openapi.json", openapi_json),
        web.get("/asyncapi.json", asyncapi_json),
        web.get("/docs", docs_page),
        web.get("/favicon.ico", favicon),
    )


def _json(value: object) -> bytes:
    return json.dumps(value, default=str).encode()


def _answer(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json"})
