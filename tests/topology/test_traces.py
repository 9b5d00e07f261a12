"""Traces: one an order, through all services, and nothing of them while they are off."""

from datetime import timedelta
from functools import partial

import pytest

from orders_service.commands import place
from orders_service.state import ORDERS_VIEW
from runtime.model.records import REPLAYED_FROM
from runtime.model.service import Input, PendingSideEffect, Service, Table
from runtime.model.traces import REPLAYED_TRACE, TRACEPARENT, TRACESTATE, TraceContext
from runtime.testing import TopologyTestDriver
from runtime.tracing.spans import ORDER_ID
from schemas.messages import Payment, StockLevel
from schemas.topics import CUSTOMERS, FULFILMENTS, HOME_CHECKINS, ORDERS, PAYMENTS, WAREHOUSE_INVENTORY, repartition
from tests.samples import FRANZ, checked_in
from tests.topology.conftest import Shop, order_services
from tests.traces import CLIENT, Spans

CUSTOMER = FRANZ.model_copy(update={"id": 1})
DEPLOYMENTS = ["composed", "composed, not fused", "apart"]

WAY_OF_A_FAILED_ORDER = {
    "orders: command place",
    "orders: command place > orders: process orders",
    *(
        f"orders: command place > {check}: process orders > {check}: process {check}-orders-by-{key}"
        " > orders: process order-validations"
        for check, key in (("fraud", "customer"), ("inventory", "product"), ("details", "product"))
    ),
    "orders: command place > fulfilment: process orders",
}
"""Spans of an order that has failed, each with those that led to it."""


class TracedShop(Shop):
    """All services of an order, and their spans."""

    def __init__(self, deployment="composed", *, traced=True, sampled=True, **changes) -> None:
        self.spans = Spans()
        tracer = self.spans.tracer(sampled=sampled) if traced else None
        self.services = order_services(**changes)
        fuse = deployment != "composed, not fused"
        super().__init__(TopologyTestDriver(*self.services, apart=deployment == "apart", fuse=fuse, tracer=tracer))
        self.topology.send(CUSTOMERS, CUSTOMER)
        self.stock(JUMPERS=10)
        self.spans.clear()

    def place(self, trace=CLIENT, **content):
        order = self.order(**content)
        self.topology.call(ORDERS_VIEW, order.id, partial(place, order), trace)

    def send_raw(self, topic, message, *headers):
        self.topology.send_raw(topic, topic.key(message).encode(), message.to_json(), *headers)

    def emails(self):
        """The trace of each enqueued e-mail."""
        worker = next(w for w in self.topology.workers if any(s.name == "email" for s in w.topology.services))
        rows = [row for p in range(self.topology.partitions) for row in worker.stores.open("email-effects", p).items()]
        contexts = {key.decode(): TraceContext.of_row(PendingSideEffect.from_json(raw).trace) for key, raw in rows}
        return {key: context and context.trace_id for key, context in contexts.items()}

    def rows(self):
        """All rows of all tables."""
        for worker in self.topology.workers:
            for table in worker.topology.tables:
                for partition in range(self.topology.partitions):
                    yield from worker.stores.open(table, partition).items()


@pytest.fixture(params=DEPLOYMENTS)
def deployment(request):
    return request.param


def test_an_order_has_one_trace_across_all_services(deployment):
    shop = TracedShop(deployment)
    shop.place(quantity=11)
    assert shop.history() == ["CREATED", "FAILED"]
    paths = set(shop.spans.paths())
    assert paths >= WAY_OF_A_FAILED_ORDER, WAY_OF_A_FAILED_ORDER - paths
    assert any(path.endswith("email: process email-letters-by-customer") for path in paths)
    assert len(list(shop.spans.paths())) == len(shop.spans.of())  # all are below the client's span
    assert {span.attributes[ORDER_ID] for span in shop.spans.of()} == {"o1"}


def test_a_batch_and_its_messages_are_linked(deployment):
    shop = TracedShop(deployment)
    shop.place()
    batches = {span.context.trace_id: span for span in shop.spans.named("batch")}
    assert CLIENT.trace_id not in batches
    assert all({link.trace_id for link in batch.links} == {CLIENT.trace_id} for batch in batches.values())
    linked = {link.trace_id for span in shop.spans.of() for link in span.links}
    assert linked == set(batches)
    entries = [span for span in shop.spans.of() if "faust_orders.fused" not in span.attributes]
    assert all(span.links for span in entries)


def test_processing_again_writes_the_same(deployment):
    """A batch that was dropped is processed again. Links to its messages must still be right."""
    headers = []
    for _ in range(2):
        shop = TracedShop(deployment)
        shop.place(quantity=11)
        headers.append([record.headers for log in shop.topology.topics.values() for record in log])
    assert headers[0] == headers[1]
    assert any(TRACEPARENT in dict(written) for written in headers[0])


def test_an_email_knows_its_trace(deployment):
    shop = TracedShop(deployment)
    shop.place(quantity=11)
    assert shop.emails() == {"o1/failed": CLIENT.trace_id}


def test_what_is_sampled_out_has_no_spans_but_passes_its_context_on(deployment):
    shop = TracedShop(deployment)
    shop.place(CLIENT._replace(flags=0, state="vendor=1"), quantity=11)
    assert shop.spans == []
    for record in shop.topology.records(ORDERS.name):
        headers = dict(record.headers)
        assert headers[TRACEPARENT].endswith(b"-00")
        assert headers[TRACESTATE] == b"vendor=1"


def test_a_record_that_is_sampled_out_tells_so_everyone_behind_it():
    shop = TracedShop("apart", sampled=False)
    shop.send_raw(ORDERS, shop.order())
    assert shop.spans == []
    decided = shop.topology.records(ORDERS.name)[1]
    assert dict(decided.headers)[TRACEPARENT].endswith(b"-00")


def test_off_passes_nothing_on(deployment):
    """Without traces, records and rows are byte for byte those of a record without a context."""
    written = []
    for headers in ((), CLIENT._replace(state="vendor=1").headers):
        shop = TracedShop(deployment, traced=False)
        shop.send_raw(ORDERS, shop.order(customer_id=2, quantity=11), *headers)
        shop.topology.advance(timedelta(minutes=5))
        out = [
            record
            for log in shop.topology.topics.values()
            for record in log
            if (TRACEPARENT not in dict(record.headers))
        ]
        written.append(([r for r in out if r.offset or r.topic != ORDERS.name], sorted(shop.rows())))
    assert written[0] == written[1]


def test_a_record_without_context_begins_the_same_trace_everywhere():
    """Payments of other programs are read by fulfilment and e-mail, on different workers."""
    shop = TracedShop("apart")
    shop.topology.send(PAYMENTS, Payment(id="p1", order_id="o1", ccy="EUR", amount=5))
    roots = [span for span in shop.spans.named("process payments") if span.parent is None]
    assert {span.service for span in roots} == {"fulfilment", "email"}
    assert len({span.context.trace_id for span in roots}) == 1
    assert len({span.context.span_id for span in roots}) == 2


@pytest.mark.parametrize("traceparent", [b"", b"junk", None, b"\xff" * 55])
def test_an_invalid_context_is_as_good_as_none(traceparent):
    shop = TracedShop()
    shop.send_raw(ORDERS, shop.order(), (TRACEPARENT, traceparent))
    assert shop.history() == ["CREATED", "VALIDATED"]
    contexts = [TraceContext.of_headers(tuple(r.headers)) for r in shop.topology.records(ORDERS.name)[1:]]
    assert None not in contexts


def test_a_replay_has_a_trace_of_its_own_with_a_link(deployment):
    shop = TracedShop(deployment)
    marks = ((REPLAYED_FROM, b"orders/2/17"), (REPLAYED_TRACE, CLIENT.traceparent.encode()))
    shop.send_raw(ORDERS, shop.order(quantity=11), *marks)
    roots = [span for span in shop.spans if span.parent is None and span.name == "process orders"]
    assert roots
    assert all(span.context.trace_id != CLIENT.trace_id for span in roots)
    assert all(CLIENT.trace_id in {link.trace_id for link in span.links} for span in roots)
    assert len({span.context.trace_id for span in shop.spans if "batch" not in span.name}) == 1
    assert [dict(r.headers)[REPLAYED_FROM] for r in shop.topology.records(ORDERS.name)] == [b"orders/2/17"] * 2


def test_what_a_payment_or_check_in_completes_stays_in_the_trace_of_the_order(deployment):
    shop = TracedShop(deployment)
    shop.place()
    shop.topology.send(PAYMENTS, Payment(id="p1", order_id="o1", ccy="EUR", amount=5))
    shop.topology.send(HOME_CHECKINS, checked_in())
    assert shop.history() == ["CREATED", "VALIDATED", "SHIPPED"]
    for topic in (ORDERS, FULFILMENTS):
        written = [TraceContext.of_headers(r.headers) for r in shop.topology.records(topic.name)]
        assert {context.trace_id for context in written} == {CLIENT.trace_id}
    assert shop.emails() == {"o1/validated": CLIENT.trace_id, "o1/shipped": CLIENT.trace_id}
    assert len(list(shop.spans.paths())) == len(shop.spans.of())
    for name in ("process fulfilment-payments-by-order", "process home-checkins", "process email-payments-by-order"):
        (span,) = [span for span in shop.spans.named(name) if span.service in {"fulfilment", "email"}]
        assert span.context.trace_id != CLIENT.trace_id
        completes = "fulfilment-payments" not in name  # the check-in came last
        assert (CLIENT.trace_id in {link.trace_id for link in span.links}) is completes


def test_a_timer_belongs_to_the_trace_that_set_it(deployment):
    shop = TracedShop(deployment, required_checks="FRAUD_CHECK,CREDIT_CHECK")
    shop.place()
    shop.topology.advance(timedelta(hours=1))
    assert shop.history() == ["CREATED", "FAILED"]
    (due,) = shop.spans.named("timer deadline")
    assert due.context.trace_id == CLIENT.trace_id
    assert due.attributes[ORDER_ID] == "o1"
    assert any("timer deadline > email: process orders" in path for path in shop.spans.paths())


def test_an_email_that_waits_for_its_customer_stays_in_its_trace(deployment):
    shop = TracedShop(deployment)
    shop.place(customer_id=2, quantity=11)
    shop.topology.send(CUSTOMERS, FRANZ.model_copy(update={"id": 2}))
    assert shop.emails() == {"o1/failed": CLIENT.trace_id}


def test_a_command_that_fails_is_seen_without_the_text_of_its_error():
    shop = TracedShop()

    def refuse(ctx):
        raise ValueError("contents")

    with pytest.raises(ValueError, match="contents"):
        shop.topology.call(ORDERS_VIEW, "o1", refuse, CLIENT)
    (span,) = shop.spans.named("command refuse")
    assert span.error == "ValueError"
    assert "contents" not in str(span)


def test_messages_of_one_span_to_one_topic_have_spans_of_their_own():
    """Fused messages have no offset that tells them apart."""
    twice = repartition("copier", WAREHOUSE_INVENTORY, "product", lambda level: level.product)
    levels = Table("copier-levels", StockLevel)

    def send_twice(level, ctx):
        ctx.send(twice, level)
        ctx.send(twice, level)

    keep = Input(twice, lambda level, ctx: ctx.put(levels, level.product, level))
    spans = Spans()
    service = Service("copier", (Input(WAREHOUSE_INVENTORY, send_twice), keep), (twice,), (levels,))
    driver = TopologyTestDriver(service, tracer=spans.tracer())
    driver.send(WAREHOUSE_INVENTORY, StockLevel(product="mug", count=3))
    processed = spans.named(f"process {twice.name}")
    assert len(processed) == len({span.context.span_id for span in processed}) == 2
