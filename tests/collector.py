"""A collector that receives spans by OTLP over HTTP, as a real one does."""

import gzip
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.workers import until


@dataclass
class Received:
    """A span, with ids in hexadecimal digits."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    links: list[tuple[str, str]]
    error: bool
    seconds: float


@dataclass
class Collector:
    """The spans that were received."""

    url: str
    spans: list[Received] = field(default_factory=list)

    def of(self, trace: str) -> list[Received]:
        return [span for span in self.spans if span.trace == trace]

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    def paths(self, trace: str, parent: str) -> Iterator[str]:
        """Each span below `parent` with those that led to it: `orders: command place > fraud: process orders`."""
        for span in self.of(trace):
            if span.parent == parent:
                own = f"{span.service}: {span.name}"
                yield own
                yield from (f"{own} > {path}" for path in self.paths(trace, span.id))

    async def wait_for(self, *names: str, trace: str) -> None:
        """Waits until the trace has a span of each name."""
        await until(
            lambda: {*names} <= {span.name for span in self.of(trace)}, f"spans {names} of {sorted(self._names(trace))}"
        )

    def _names(self, trace: str) -> set[str]:
        return {span.name for span in self.of(trace)}

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _values(of_resource.resource.attributes)
            for scope in of_resource.scope_spans:
                self.spans += [_received(span, resource) for span in scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A running collector."""
    app = web.Application(client_max_size=2**26)
    runner = web.AppRunner(app)
    collector = Collector("")
    app.router.add_post("/v1/traces", collector.receive)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()


def _values(attributes: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


def _received(span: Any, resource: dict[str, Any]) -> Received:
    return Received(
        resource["service.name"],
        span.name,
        type(span).SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _values(span.attributes),
        resource,
        [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        span.status.code == 2,
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )
