import asyncio
import json
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from openapi_spec_validator import validate
from prometheus_client import REGISTRY

from orders_service.state import OrderView
from runtime.common.settings import Settings
from runtime.errors import BrokerUnavailable, KeyNotOwned
from runtime.hosting import Answer, Endpoint, ResponseHeader, ServiceDefinition
from runtime.http.inputs import AT, ORDER_ID
from runtime.http.openapi import document
from runtime.http.server import application
from runtime.model.service import Service
from schemas import messages
from schemas.wire import Message
from tests.unit.http.fakes import HOSTED, ORDER, SERVICE, Cluster, FakeHost, Running, running, until

PROBLEM = "application/problem+json"
HEAD = b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def endpoint(method, path, name="other", handler=None, **more):
    """An endpoint of another service."""
    return Endpoint(method, path, handler, name, "Summary", "other", {200: Answer("Answer", **more)})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/orders/", 404),
        ("GET", "/v1/orders/a/b", 404),
        ("GET", "/v1/orders/a/validated/", 404),
        ("GET", "/nothing?x=<script>", 404),
        ("GET", "/%FF%00", 404),
        ("PATCH", "/v1/orders/a", 405),
        ("GET", "/v1/orders", 405),
        ("POST", "/healthz", 405),
        ("PROPFIND", "/docs", 405),
        ("BREW", "/docs", 400),
    ],
)
async def test_an_unknown_route_is_a_problem(worker: Running, method: str, path: str, status: int):
    async with worker.request(method, path) as answer:
        assert (answer.status, answer.content_type) == (status, PROBLEM)
        problem = await answer.json()
    assert problem["status"] == status
    assert problem["detail"]
    if status == 405:
        assert answer.headers["Allow"] in problem["detail"]


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /docs HTTP/9.9\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /docs HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /docs HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET /docs HTTP/1.1\r\nAccept: text/html\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n",
    ],
)
async def test_a_malformed_request_is_a_problem(worker: Running, sent: bytes):
    status, headers, body = await worker.raw(sent, ends=True)
    assert (status, headers["content-type"]) == (400, PROBLEM)
    assert json.loads(body)["status"] == 400


async def test_an_unknown_expectation_is_a_problem(worker: Running):
    status, headers, _ = await worker.raw(HEAD + b"Expect: wonders\r\nContent-Length: 2\r\n\r\n{}")
    assert (status, headers["content-type"]) == (417, PROBLEM)


async def test_a_body_that_is_too_large_is_answered_413(worker: Running):
    large = {**ORDER, "product": "x" * 2 * 1024 * 1024}
    async with asyncio.timeout(60), worker.post(large) as answer:
        assert (answer.status, answer.content_type) == (413, PROBLEM)
        assert "4096" in (await answer.json())["detail"]

    async def chunks() -> Any:
        for _ in range(32):
            yield b"x" * 65536

    async with asyncio.timeout(60):
        async with worker.request("POST", "/v1/orders", data=chunks()) as answer:
            assert (answer.status, answer.content_type) == (415, PROBLEM)  # octet-stream, as aiohttp's client says
        headers = {"Content-Type": "application/json"}
        async with worker.request("POST", "/v1/orders", data=chunks(), headers=headers) as answer:
            assert (answer.status, answer.content_type) == (413, PROBLEM)
    async with worker.post(ORDER) as answer:
        assert answer.status == 201


async def test_expect_100_continue_with_too_large_a_body_is_answered_413_at_once(worker: Running):
    status, headers, _ = await worker.raw(HEAD + b"Expect: 100-continue\r\nContent-Length: 2097152\r\n\r\n")
    assert (status, headers["content-type"], headers["connection"]) == (413, PROBLEM, "close")


async def test_expect_100_continue_is_answered_100(worker: Running):
    async with worker.post(ORDER, expect100=True) as answer:
        assert answer.status == 201


async def test_a_small_body_that_decompresses_to_a_large_one_is_answered_413(worker: Running):
    import gzip

    packed = gzip.compress(json.dumps({**ORDER, "product": "x" * 1_000_000}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    async with worker.post(packed, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (413, PROBLEM)
    async with worker.post(gzip.compress(json.dumps(ORDER).encode()), headers=headers) as answer:
        assert answer.status == 201
    async with worker.post(b"no gzip", headers=headers) as answer:
        assert (answer.status, answer.content_type) == (400, PROBLEM)


async def test_an_internal_error_gives_the_client_an_id_and_the_log_the_traceback(cluster: Cluster, caplog: Any):
    async def fail(_: FakeHost, _request: web.Request) -> web.Response:
        raise RuntimeError("the secret")

    async with (
        running(cluster, (ServiceDefinition(SERVICE, (endpoint("GET", "/fail", handler=fail),)),)) as worker,
        worker.get("/fail", headers={"Accept": "text/html"}) as answer,
    ):
        assert (answer.status, answer.content_type) == (500, PROBLEM)
        text = await answer.text()
    assert "secret" not in text
    assert "Traceback" not in text
    error_id = json.loads(text)["instance"].removeprefix("urn:uuid:")
    [record] = [r for r in caplog.records if error_id in r.getMessage()]
    assert record.exc_info[0] is RuntimeError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyNotOwned(), 503),
        (BrokerUnavailable(), 503),
        (web.HTTPForbidden(), 403),
        (TimeoutError(), 500),
        (KeyError(), 500),
    ],
)
async def test_every_exception_of_a_service_is_a_problem(cluster: Cluster, error: Exception, status: int):
    async def fail(_: FakeHost, _request: web.Request) -> web.Response:
        raise error

    async with (
        running(cluster, (ServiceDefinition(SERVICE, (endpoint("GET", "/fail", handler=fail),)),)) as worker,
        worker.get("/fail") as answer,
    ):
        assert (answer.status, answer.content_type) == (status, PROBLEM)
        assert ("Retry-After" in answer.headers) == (status == 503)


async def test_health_is_a_running_process_and_readiness_is_reported_by_the_host(worker: Running):
    async with worker.get("/healthz") as health, worker.get("/readyz") as ready:
        assert (health.status, ready.status) == (200, 200)
        assert await ready.json() == {"ready": True, "partitions": [0, 1]}
    worker.host.stop()
    async with worker.get("/healthz") as health, worker.get("/readyz") as ready:
        assert (health.status, ready.status) == (200, 503)
        assert (await ready.json())["ready"] is False


def _count(method: str, route: str, status: int) -> float:
    labels = {"method": method, "route": route, "status": str(status)}
    return REGISTRY.get_sample_value("faust_orders_http_request_duration_seconds_count", labels) or 0.0


async def test_requests_are_counted_by_route_and_not_by_path(worker: Running):
    route = "/v1/orders/{id}"
    before = _count("GET", route, 404), _count("GET", "unknown", 404), _count("other", "unknown", 404)
    for path in ("/v1/orders/one", "/v1/orders/two"):
        await worker.get(f"{path}?timeout=0")
    await worker.get("/one")
    await worker.request("PROPFIND", "/two")
    assert _count("GET", route, 404) == before[0] + 2
    assert _count("GET", "unknown", 404) == before[1] + 1
    assert _count("other", "unknown", 404) == before[2] + 1
    async with worker.get("/metrics") as answer:
        assert answer.content_type == "text/plain"
        text = await answer.text()
    assert 'route="/v1/orders/{id}"' in text
    assert "PROPFIND" not in text
    assert "/v1/orders/one" not in text


async def test_requests_in_flight_are_counted_until_their_clients_disconnect(worker: Running):
    before = _count("GET", "/v1/orders/{id}", 499)
    gets = [asyncio.ensure_future(worker.get("/v1/orders/o")) for _ in range(3)]
    await until(lambda: REGISTRY.get_sample_value("faust_orders_http_requests_in_flight") == 3)
    for get in gets:
        get.cancel()
    await until(lambda: REGISTRY.get_sample_value("faust_orders_http_requests_in_flight") == 0)
    assert _count("GET", "/v1/orders/{id}", 499) == before + 3


async def test_the_openapi_document_is_valid_and_served(worker: Running):
    async with worker.get("/openapi.json") as answer:
        served = await answer.json()
    validate(served)
    assert served == json.loads(json.dumps(document([HOSTED])))
    assert served["components"]["schemas"]["NewOrder"]["properties"]["price"]["type"] == "number"
    assert served["components"]["schemas"]["NewOrder"]["required"] == ["customerId", "product", "quantity", "price"]


def test_every_route_is_documented_and_every_documented_route_exists():
    app = application(FakeHost(Cluster(), Settings()), [HOSTED])
    exist = {(r.method, r.resource.canonical) for r in app.router.routes() if r.resource} - {("GET", "/favicon.ico")}
    described = {(m.upper(), path) for path, methods in document([HOSTED])["paths"].items() for m in methods}
    assert {(m, path) for m, path in exist if m != "HEAD"} == described


def test_every_observed_status_of_a_route_is_documented():
    # The metrics have every status that other tests of this folder have caused.
    paths = document([HOSTED])["paths"]
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name == "faust_orders_http_request_duration_seconds_count":
                described = paths.get(sample.labels["route"], {}).get(sample.labels["method"].lower())
                status = sample.labels["status"]
                assert described is None or status == "499" or status in described["responses"], sample.labels


async def earlier(_, request):
    return web.json_response({"at": request.query["at"]})


EARLIER = Endpoint(
    "GET",
    "/v1/orders/{id}",
    earlier,
    "getEarlier",
    "Get it as it was",
    "other",
    {200: Answer("As it was", messages.Order, (ResponseHeader("X-Lag", "Seconds"),))},
    parameters=(ORDER_ID, AT),
    when="at",
)


class Order(Message):
    """Another model under the name of the orders service's."""

    id: str


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (endpoint("POST", "/v1/orders"), "two services answer POST /v1/orders"),
        (replace(EARLIER, when=None), "two services answer GET /v1/orders/{id}"),
        (endpoint("GET", "/healthz"), "two services answer GET /healthz"),
        (endpoint("GET", "/v1/other", "postOrder"), "POST /v1/orders and GET /v1/other are both called postOrder"),
        (endpoint("GET", "/v1/other", body=Order), "two services describe Order differently"),
    ],
)
def test_contradicting_endpoints_of_services_are_rejected_at_the_start(other, complaint):
    with pytest.raises(ValueError, match=complaint):
        application(FakeHost(Cluster(), Settings()), [HOSTED, ServiceDefinition(SERVICE, (other,))])


def test_another_method_of_a_path_may_be_of_another_service():
    other = ServiceDefinition(SERVICE, (endpoint("DELETE", "/v1/orders", "clear"),))
    assert document([HOSTED, other])["paths"]["/v1/orders"].keys() == {"post", "delete"}


@pytest.mark.parametrize("reverse", [False, True])
async def test_a_query_parameter_chooses_between_two_services(cluster: Cluster, reverse):
    hosted = [HOSTED, ServiceDefinition(Service("earlier", (), ()), (EARLIER,))]
    async with running(cluster, reversed(hosted) if reverse else hosted) as worker:
        async with worker.get("/v1/orders/a?at=noon") as answer:
            assert (answer.status, await answer.json()) == (200, {"at": "noon"})
        async with worker.get("/v1/orders/a?timeout=0") as answer:
            assert answer.status == 404
    described = document(reversed(hosted) if reverse else hosted)["paths"]["/v1/orders/{id}"]["get"]
    assert described["operationId"] == "getOrder"
    assert {p["name"] for p in described["parameters"]} == {"id", "timeout", "at"}
    assert set(described["responses"]["200"]["headers"]) == {"X-Served-By", "Age", "X-Lag"}
    assert "With `at`: Get it as it was." in described["description"]
    assert "x-when" not in described


async def test_the_orders_service_alone_refuses_to_answer_for_another_time(worker: Running):
    async with worker.get("/v1/orders/a?at=2026-01-31T12:00:00Z") as answer:
        assert (answer.status, answer.content_type) == (421, PROBLEM)


@pytest.mark.parametrize(("path", "parameters"), [("/v1/orders/{id}", ()), ("/v1/orders", (ORDER_ID,))])
def test_an_endpoint_declares_the_parameters_of_its_path(path, parameters):
    with pytest.raises(ValueError, match=f"GET {path}: declare each parameter of the path"):
        Endpoint("GET", path, None, "other", "Summary", "other", {}, parameters=parameters)


async def test_the_documentation_loads_nothing_from_other_origins(worker: Running):
    async with worker.get("/docs") as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        page = await answer.text()
    assert "http://" not in page
    assert "https://" not in page
    assert "innerHTML" not in page
    async with worker.get("/favicon.ico") as answer:
        assert answer.status == 204


async def test_a_stopping_worker_answers_waiting_clients_and_then_closes(cluster: Cluster):
    async with running(cluster) as worker:
        get = asyncio.ensure_future(worker.get("/v1/orders/o?timeout=60000"))
        await until(lambda: len(worker.host.watches) == 1)
        started = time.monotonic()
        worker.host.stop()
        async with await get as answer:
            assert answer.status == 503
    assert time.monotonic() - started < 40


async def test_successful_and_rejected_requests_are_not_logged(worker: Running, caplog: Any):
    order = messages.Order(id="o", customer_id=1, product="x", quantity=1, price=1, created_at=datetime.now(UTC))
    worker.host.cluster.put(OrderView(order=order))
    with caplog.at_level(logging.INFO):
        await worker.get("/v1/orders/o")
        await worker.get("/nothing")
        await worker.post(b"{")
        await worker.raw(b"nonsense\r\n\r\n")
    assert not [r for r in caplog.records if r.name.startswith(("aiohttp", "runtime", "orders_service"))]


@pytest.mark.parametrize("path", ["/healthz", "/v1/orders/a?timeout=0", "/metrics"])
async def test_a_worker_on_the_loopback_answers_no_name_of_strangers(cluster: Cluster, path: str):
    """A page of evil.example may let that name resolve to 127.0.0.1, and would be of the same origin then."""
    async with running(cluster, http_allowed_hosts="shop.example.com", advertised_url="http://w1:8080") as worker:
        port = worker.host.url.port
        for name in (f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example"):
            async with worker.get(path, headers={"Host": name}) as answer:
                assert (answer.status, answer.content_type) == (403, PROBLEM)
                assert "HTTP_ALLOWED_HOSTS" in (await answer.json())["detail"]
        for name in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "shop.example.com", "w1:8080"):
            async with worker.get(path, headers={"Host": name}) as answer:
                assert answer.status in {200, 404}


@pytest.mark.parametrize(
    ("address", "status"), [("0.0.0.0", 200), ("192.0.2.1", 200), ("localhost", 403), ("::1", 403)]
)
async def test_a_worker_on_another_interface_answers_any_name(cluster: Cluster, address: str, status: int):
    async with (
        running(cluster, http_host=address) as worker,
        worker.get("/healthz", headers={"Host": "shop.example.com"}) as answer,
    ):
        assert answer.status == status
