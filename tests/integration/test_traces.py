"""Traces of real workers on a real Kafka, received by a collector over OTLP."""

import logging

import pytest

from ecosystem.embedded.ports import free_ports
from ecosystem.services import CORE
from runtime.common.partitioning import partition_of
from runtime.model.traces import TRACEPARENT, TraceContext
from runtime.tracing.spans import ORDER_ID
from schemas.identifiers import new_order_id
from schemas.topics import CUSTOMERS, ORDERS, PRODUCTS
from tests.collector import collecting
from tests.letters import Mailbox, serving
from tests.receivers import Receiver
from tests.samples import FRANZ
from tests.servers import SilentServer
from tests.traces import CLIENT
from tests.workers import Deployment, until

ORDER = {"customerId": FRANZ.id, "product": "JUMPERS", "quantity": 11, "price": 1}
"""An order that fails: there are ten JUMPERS."""

PLACED = "orders: POST /v1/orders > orders: command place"
CHECKED = [
    f"{PLACED} > {check}: process orders > {check}: process {check}-orders-by-{key} > orders: process order-validations"
    for check, key in (("fraud", "customer"), ("inventory", "product"), ("details", "product"))
]


@pytest.fixture
async def collector(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # milliseconds
    async with collecting() as collector:
        yield collector


@pytest.fixture
def mailbox():
    return Mailbox()


@pytest.fixture
def smtp_port(mailbox):
    [port] = free_ports(1)
    with serving(mailbox, port):
        yield port


def headers(context=CLIENT):
    return {TRACEPARENT: context.traceparent}


async def post(deployment: Deployment, worker, context=CLIENT, **content):
    answer = await deployment.repeated(
        worker, "POST", "/v1/orders?timeout=60000", json={**ORDER, **content}, headers=headers(context)
    )
    assert answer.status == 201, answer
    return answer.json()["id"]


async def test_one_order_is_one_trace_from_post_to_email(deployment: Deployment, collector, mailbox, smtp_port):
    worker = await deployment.start(
        "orders", "fraud", "inventory", "details", "fulfilment", "email",
        smtp_port=smtp_port, otel_exporter_otlp_endpoint=collector.url,
    )  # fmt: skip
    await deployment.stock(JUMPERS=10)
    await deployment.send(CUSTOMERS, FRANZ)
    order_id = await post(deployment, worker, id="traced")
    await until(lambda: mailbox.letters, "a letter")
    await collector.wait_for("perform letter", "POST /v1/orders", trace=CLIENT.trace_id)
    await until(lambda: len(collector.named("batch")) > 1, "batches")

    spans = collector.of(CLIENT.trace_id)
    paths = list(collector.paths(CLIENT.trace_id, CLIENT.span_id))
    assert len(paths) == len(spans)  # all are below the client's span
    assert {*CHECKED} <= {*paths}
    assert any(path.endswith("email: process email-letters-by-customer > email: perform letter") for path in paths)
    by_name = {span.name: span for span in spans}
    about_it = [span for span in spans if span.name not in {"POST /v1/orders", "command acknowledge_row"}]
    assert {span.attributes.get(ORDER_ID) for span in about_it} == {order_id}

    server, processed = by_name["POST /v1/orders"], by_name["process orders"]
    assert (server.kind, processed.kind, by_name["perform letter"].kind) == ("SERVER", "CONSUMER", "CLIENT")
    assert server.attributes["http.route"] == "/v1/orders"
    assert server.attributes["http.response.status_code"] == 201
    assert processed.attributes["messaging.system"] == "kafka"
    assert processed.attributes["messaging.destination.name"] == deployment.prefix + ORDERS.name
    assert int(processed.attributes["messaging.destination.partition.id"]) == partition_of(order_id.encode(), 4)
    assert {span.resource["service.namespace"] for span in spans} == {"faust-orders"}
    assert len({span.resource["service.instance.id"] for span in spans}) == 1
    assert not any(word in repr(spans) for word in ("JUMPERS", FRANZ.email, FRANZ.last_name))

    batches = {span.trace: span for span in collector.named("batch")}
    (linked,) = by_name["command place"].links
    batch = batches[linked[0]]
    assert any(trace == CLIENT.trace_id for trace, _ in batch.links)
    steps = {span.name: span for span in collector.of(batch.trace) if span.parent == batch.id}
    assert {*steps} == {"batch poll", "batch process", "batch commit", "batch apply"}
    assert steps["batch commit"].attributes["faust_orders.outputs"] > 0
    assert sum(step.seconds for step in steps.values()) == pytest.approx(batch.seconds, abs=1e-6)


async def test_a_receiver_of_webhooks_can_continue_the_trace(deployment: Deployment, collector):
    keys = {"webhook_keys": "k" * 32, "webhook_allowed_networks": "127.0.0.0/8"}
    worker = await deployment.start(*CORE, "webhooks", otel_exporter_otlp_endpoint=collector.url, **keys)
    await deployment.stock(JUMPERS=10)
    async with Receiver() as receiver:
        body = {"url": receiver.url, "events": ["order.failed"]}
        assert (await deployment.repeated(worker, "POST", "/v1/webhooks", json=body)).status == 201
        state = "vendor=internal"
        order = {**ORDER, "id": "traced-to-a-receiver"}
        with_state = {**headers(), "tracestate": state}
        answer = await deployment.repeated(worker, "POST", "/v1/orders", json=order, headers=with_state)
        assert answer.status == 201
        await until(lambda: receiver.accepted, "a delivery")
        await collector.wait_for("perform delivery", trace=CLIENT.trace_id)
        [span] = [span for span in collector.of(CLIENT.trace_id) if span.name == "perform delivery"]
        got = receiver.accepted[0].headers
        assert got["traceparent"] == f"00-{CLIENT.trace_id}-{span.id}-01"
        assert "tracestate" not in got


async def test_a_forwarded_order_is_one_trace_across_workers(deployment: Deployment, collector):
    """Two workers of the orders service and one of each validator. The POST is forwarded to the owner of its key."""
    first, second = await deployment.start_core(apart=True, orders=2, otel_exporter_otlp_endpoint=collector.url)
    await deployment.stock(JUMPERS=10)
    owned = {*second.readiness()["partitions"]}
    elsewhere = next(id_ for _ in range(1000) if partition_of((id_ := new_order_id()).encode(), 4) in owned)
    await post(deployment, first, id=elsewhere)
    assert (await deployment.outcome(first, elsewhere))["state"] == "FAILED"
    await collector.wait_for("process inventory-orders-by-product", "command place", trace=CLIENT.trace_id)
    forwarded = "orders: POST /v1/orders > faust-orders: POST /v1/orders > "
    wanted = {forwarded + path for path in CHECKED}
    await until(lambda: wanted <= {*collector.paths(CLIENT.trace_id, CLIENT.span_id)}, "all spans")

    spans = collector.of(CLIENT.trace_id)
    assert [span.kind for span in spans if span.name == "POST /v1/orders"].count("CLIENT") == 1
    assert len({span.resource["service.instance.id"] for span in spans}) == 5
    written = await deployment.records(ORDERS.name)
    assert {TraceContext.of_headers(r.headers).trace_id for r in written} == {CLIENT.trace_id}


async def test_what_a_client_does_not_sample_is_passed_on_without_spans(deployment: Deployment, collector):
    worker = await deployment.start(otel_exporter_otlp_endpoint=collector.url)
    await post(deployment, worker, CLIENT._replace(flags=0), id="silent")
    assert (await deployment.outcome(worker, "silent"))["state"] == "FAILED"
    await deployment.stop(worker)  # exports what waits
    assert collector.of(CLIENT.trace_id) == []
    flags = {TraceContext.of_headers(r.headers).flags for r in await deployment.records(ORDERS.name)}
    assert flags == {0}


async def test_off_writes_no_context(deployment: Deployment):
    worker = await deployment.start()
    await post(deployment, worker, id="off")
    await deployment.outcome(worker, "off")
    assert not any(TRACEPARENT in dict(record.headers) for record in await deployment.records(ORDERS.name))


async def test_an_outbox_continues_the_trace_of_its_request(deployment: Deployment, collector, database_url):
    worker = await deployment.start(
        "products", "product-monitoring", products_database_url=database_url, otel_exporter_otlp_endpoint=collector.url
    )
    mug = {"code": "mug", "name": "Mug", "price": 12.0}
    answer = await deployment.repeated(worker, "POST", "/v1/products", json=mug, headers=headers())
    assert answer.status == 201
    way = "products: POST /v1/products > products: send products > product-monitoring: process products"
    await until(
        lambda: any(path.startswith(way) for path in collector.paths(CLIENT.trace_id, CLIENT.span_id)), "the way"
    )
    (record,) = await deployment.records(PRODUCTS.name)
    (sent,) = collector.named("send products")
    assert TraceContext.of_headers(record.headers).span_id == sent.id
    assert sent.kind == "PRODUCER"


@pytest.mark.parametrize("kind", ["refuses", "is silent"])
async def test_a_collector_that_is_away_delays_nothing(deployment: Deployment, kind, monkeypatch, caplog):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    caplog.set_level(logging.WARNING)
    with SilentServer() as silent:
        url = silent.url if kind == "is silent" else f"http://127.0.0.1:{free_ports(1)[0]}"
        worker = await deployment.start(otel_exporter_otlp_endpoint=url)
        for n in range(5):
            await post(deployment, worker, id=f"o{n}")
        assert (await deployment.outcome(worker, "o4"))["state"] == "FAILED"
        await until(lambda: "traces not exported" in caplog.text, "a warning")
        for n in range(5, 7):
            await post(deployment, worker, id=f"o{n}")
        await deployment.stop(worker)
    warnings = [r for r in caplog.records if "traces" in r.getMessage() or r.name.startswith("opentelemetry")]
    assert [record.name for record in warnings] == ["runtime.tracing.otlp"]
