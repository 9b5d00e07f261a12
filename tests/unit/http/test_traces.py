"""Spans of requests, and the context that forwarded ones carry."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from runtime.hosting import Answer, Endpoint, ServiceDefinition
from runtime.http.problems import unexpected
from runtime.model.service import Service
from runtime.model.traces import CURRENT, TRACEPARENT, TRACESTATE
from runtime.tracing.spans import ORDER_ID, Kind
from tests.traces import CLIENT, Spans
from tests.unit.http.fakes import HOSTED, ORDER, Cluster, Running, answered_by, running

HEADERS = {TRACEPARENT: CLIENT.traceparent, TRACESTATE: "vendor=1"}
ID = "o-1"


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
async def workers(cluster: Cluster, spans: Spans) -> AsyncIterator[list[Running]]:
    """The worker that owns all keys, and one that owns none, both traced."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(cluster, tracer=spans.tracer())) for _ in range(2)]


async def test_a_request_continues_the_trace_of_its_client(workers: list[Running], spans: Spans):
    async with workers[0].post({**ORDER, "id": ID}, headers=HEADERS) as answer:
        assert answer.status == 201
    (span,) = spans
    assert (span.name, span.kind, span.service) == ("POST /v1/orders", Kind.SERVER, "orders")
    assert span.parent is not None
    assert (span.parent.span_id, span.context.state) == (CLIENT.span_id, "vendor=1")
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/orders",
        "http.response.status_code": 201,
        "url.path": "/v1/orders",
        "url.scheme": "http",
    }
    assert span.error is None


async def test_a_route_that_two_services_share_is_of_the_one_that_answers_its_method(cluster: Cluster, spans: Spans):
    """The history lists orders at the path where the orders service creates them."""

    async def listed(*_: object) -> web.StreamResponse:
        return web.json_response({"orders": []})

    listing = Endpoint("GET", "/v1/orders", listed, "listOrders", "List", "history", {200: Answer("Orders")})
    history = ServiceDefinition(Service(name="history", inputs=(), outputs=()), (listing,))
    async with running(cluster, (HOSTED, history), tracer=spans.tracer()) as worker:
        async with worker.post({**ORDER, "id": ID}) as answer:
            assert answer.status == 201
        async with worker.get("/v1/orders") as answer:
            assert answer.status == 200
    assert [(span.name, span.service) for span in spans] == [
        ("POST /v1/orders", "orders"),
        ("GET /v1/orders", "history"),
    ]


async def test_a_forwarded_request_has_a_client_span_and_is_continued(workers: list[Running], spans: Spans):
    async with workers[1].post({**ORDER, "id": ID}, headers=HEADERS) as answer:
        assert answer.status == 201
    by_kind = {(span.kind, None if span.parent is None else span.parent.span_id): span for span in spans}
    outer = by_kind[Kind.SERVER, CLIENT.span_id]
    client = by_kind[Kind.CLIENT, outer.context.span_id]
    inner = by_kind[Kind.SERVER, client.context.span_id]
    assert len(spans) == 3
    assert {span.context.trace_id for span in spans} == {CLIENT.trace_id}
    assert inner.context.state == "vendor=1"


async def test_a_stream_is_forwarded_with_its_trace(workers: list[Running], spans: Spans):
    async with workers[1].get(f"/v1/orders/{ID}/events?timeout=10", headers=HEADERS) as answer:
        assert answer.status == 404
    assert [span.kind for span in spans.of()].count(Kind.CLIENT) >= 1
    assert {span.attributes[ORDER_ID] for span in spans} == {ID}


async def test_a_request_without_context_begins_a_trace(workers: list[Running], spans: Spans):
    async with workers[0].get(f"/v1/orders/{ID}?timeout=10") as answer:
        assert answer.status == 404
    (span,) = spans
    assert span.parent is None
    assert span.name == "GET /v1/orders/{id}"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_probes_and_metrics_are_not_traced(workers: list[Running], spans: Spans, path: str):
    async with workers[0].get(path, headers=HEADERS) as answer:
        assert answer.status == 200
    assert spans == []


async def test_names_of_spans_are_few_whatever_clients_send(workers: list[Running], spans: Spans):
    async with workers[0].request("PROPFIND", "/pot/17", headers=HEADERS), workers[0].get("/no/such/path"):
        pass
    assert [span.name for span in spans] == ["_OTHER", "GET"]


async def test_a_server_error_marks_its_span(cluster: Cluster, spans: Spans):
    async def fail(request: web.Request) -> web.Response:
        return unexpected(request, ValueError("contents"))

    async with running(cluster, [answered_by(fail)], tracer=spans.tracer()) as worker, worker.get(f"/v1/orders/{ID}"):
        pass
    (span,) = spans
    assert (span.error, span.attributes["http.response.status_code"]) == ("500", 500)
    assert "contents" not in str(span)


async def test_without_traces_a_forwarded_request_carries_no_context(cluster: Cluster):
    seen = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.headers.get(TRACEPARENT), CURRENT.get()))
        return web.json_response({})

    async with (
        running(cluster, [answered_by(answer)]),
        running(cluster) as other,
        other.get(f"/v1/orders/{ID}", headers=HEADERS) as answered,
    ):
        assert answered.status == 200
    assert seen == [(None, None)]
