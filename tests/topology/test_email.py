"""E-mails: when they are due, to whom, and exactly once."""

import json
from datetime import timedelta

import pytest

from email_service.app import build
from email_service.emails import compose
from email_service.state import (
    JOINS,
    LEGACY_QUEUES,
    PAYMENT_ROWS,
    QUEUE,
    AddressedEmail,
    Email,
    EmailKind,
    Join,
    LegacyQueue,
    QueuedEmail,
)
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.model.records import TopicPartition, Write
from runtime.model.service import ScheduledTimer
from runtime.state.queues import SLICE
from runtime.testing import TopologyTestDriver
from schemas.messages import Customer, Order, OrderState, Payment
from schemas.topics import BY_LEVEL, CUSTOMERS, ORDERS, ORDERS_ENRICHED, PAYMENTS
from tests.samples import order
from tests.topology.conftest import record_row_sizes

FRANZ = Customer(
    id=15, first_name="Franz", last_name="Kafka", email="franz@example.org", address="Oppelthaus, Praha", level="gold"
)
PAID = Payment(id="Payment:1234", order_id="o1", ccy="EUR", amount=1000)


class EmailService:
    """The email service in memory, with its input, pending e-mails and counted events."""

    def __init__(self, **settings) -> None:
        self.definition = build(Settings(**settings)).service
        self.topology = TopologyTestDriver(self.definition)

    def order(self, state: OrderState = OrderState.VALIDATED, **changes) -> Order:
        content = {"customer_id": 15, "product": "UNDERPANTS", "quantity": 3, "price": 5, **changes}
        return order("o1", created_at=self.topology.now, **content).model_copy(update={"state": state})

    def send(self, *events) -> None:
        topics = {Order: ORDERS, Payment: PAYMENTS, Customer: CUSTOMERS}
        for event in events:
            self.topology.send(topics[type(event)], event)

    def rows(self, table: str) -> int:
        stores = self.topology.workers[0].stores
        return sum(len(stores.open(table, partition).rows) for partition in range(self.topology.partitions))

    @property
    def pending(self) -> dict:
        return self.topology.pending(self.definition.side_effects[0])

    @property
    def counted(self) -> dict[str, int]:
        return {event: count for worker in self.topology.workers for (_, event), count in worker.events.items()}


@pytest.fixture
def service() -> EmailService:
    return EmailService()


@pytest.mark.parametrize("sequence", ["opc", "ocp", "poc", "pco", "cop", "cpo"])
def test_order_payment_and_customer_produce_one_email_in_any_order_of_arrival(service, sequence):
    service.send(*({"o": service.order(), "p": PAID, "c": FRANZ}[one] for one in sequence))

    assert list(service.pending) == ["o1/validated"]
    addressed = service.pending["o1/validated"]
    assert (addressed.email.order.id, addressed.email.payment, addressed.customer) == ("o1", PAID, FRANZ)


@pytest.mark.parametrize("first", ["order", "payment"])
@pytest.mark.parametrize("apart", [timedelta(seconds=80), timedelta(days=8), timedelta(days=89)])
def test_an_order_is_confirmed_when_it_is_paid_however_late(service, first, apart):
    events = [service.order(), PAID]
    service.send(FRANZ)
    service.send(events[first == "payment"])
    service.topology.advance(apart)
    service.send(events[first == "order"])

    assert list(service.pending) == ["o1/validated"]
    assert service.counted == {}


@pytest.mark.parametrize(
    ("first", "event"),
    [("order", "unpaid order forgotten"), ("payment", "payment without order forgotten")],
)
def test_an_unpaid_order_and_a_payment_without_order_expire_and_are_counted(service, first, event):
    events = [service.order(), PAID]
    service.send(FRANZ)
    service.send(events[first == "payment"])
    service.topology.advance(timedelta(days=99))

    assert service.topology.row(JOINS.rows, "o1") is None
    service.topology.advance(timedelta(days=8))
    assert service.rows(PAYMENT_ROWS.rows.name) == 0
    assert service.counted == {event: 1}


def test_the_retention_of_unpaid_orders_is_a_setting():
    service = EmailService(email_unpaid_days=7)
    service.send(FRANZ, service.order())
    service.topology.advance(timedelta(days=8))
    assert service.counted == {"unpaid order forgotten": 1}


@pytest.mark.parametrize("fuse", [True, False])
def test_a_payment_read_late_after_an_outage_confirms_its_order(fuse):
    """After an hour's outage the service reads an order and a payment made together."""
    service = build(Settings()).service
    topology = TopologyTestDriver(service, fuse=fuse)
    topology.send(CUSTOMERS, FRANZ)
    validated = order("o1", customer_id=15, state=OrderState.VALIDATED)
    for topic, message in ((ORDERS, validated), (PAYMENTS, PAID)):
        key = topic.key(message).encode()
        topology.write(Write(topic.name, partition_of(key, topology.partitions), key, message.to_json()))
    topology.advance(timedelta(hours=1))
    topology.run()

    assert list(topology.pending(service.side_effects[0])) == ["o1/validated"]


def test_the_wait_for_a_customer_is_a_setting():
    service = EmailService(email_window_s=3 * 24 * 3600)
    service.send(service.order(), PAID)
    service.topology.advance(timedelta(days=2))
    service.send(FRANZ)

    assert list(service.pending) == ["o1/validated"]


def test_a_customer_who_becomes_known_too_late_gets_no_email_and_leaves_no_rows(service):
    service.send(service.order(), PAID)
    service.topology.advance(timedelta(seconds=61))
    service.send(FRANZ)

    assert service.pending == {}
    assert service.rows(QUEUE.table.name) == 0
    assert service.counted == {"unknown customer": 2}


def test_a_failed_order_needs_no_payment_and_its_email_has_the_reasons(service):
    failed = service.order(OrderState.FAILED).model_copy(update={"reasons": ("FRAUD_CHECK: too much",)})
    service.send(FRANZ, failed)

    assert service.pending["o1/failed"].email.order.reasons == ("FRAUD_CHECK: too much",)


def test_validated_and_shipped_are_two_emails_each_sent_once(service):
    for _ in range(2):
        service.send(FRANZ, service.order(), PAID, service.order(OrderState.SHIPPED))

    assert sorted(service.pending) == ["o1/shipped", "o1/validated"]
    assert len(service.topology.values(ORDERS_ENRICHED)) == 1


@pytest.mark.parametrize(
    ("level", "topic"), [("platinum", "platinum"), ("gold", "gold"), ("silver", "silver"), ("tin", "bronze")]
)
def test_an_order_is_enriched_with_its_customer_and_sent_to_the_topic_of_the_level(service, level, topic):
    service.send(FRANZ.model_copy(update={"level": level}), service.order())

    [enriched] = service.topology.values(ORDERS_ENRICHED)
    assert (enriched.id, enriched.customer_id, enriched.customer_level) == ("o1", 15, level)
    assert {str(k): len(service.topology.values(t)) for k, t in BY_LEVEL.items()} == {
        one: int(one == topic) for one in ("platinum", "gold", "silver", "bronze")
    }
    assert service.counted == ({"unknown level": 1} if level == "tin" else {})


def test_a_tombstone_deletes_the_customer(service):
    service.send(FRANZ)
    service.topology.send_raw(CUSTOMERS, b"15", None)
    service.send(service.order(), PAID)

    assert service.pending == {}


def test_joins_expire_after_a_week(service):
    service.send(FRANZ, service.order(), PAID)
    service.topology.advance(timedelta(days=7, hours=2))

    assert service.topology.row(JOINS.rows, "o1") is None


def test_only_expired_emails_are_dropped_from_a_queue(service):
    service.send(service.order())
    service.topology.advance(timedelta(seconds=40))
    service.send(PAID)
    service.topology.advance(timedelta(seconds=30))
    service.send(FRANZ)

    assert list(service.pending) == ["o1/validated"]
    assert service.topology.values(ORDERS_ENRICHED) == []


def paid(amount, id_="p1", ccy="EUR") -> Payment:
    return Payment(id=id_, order_id="o1", ccy=ccy, amount=amount)


@pytest.mark.parametrize(
    ("payments", "says"),
    [
        ([paid(1)], None),
        ([paid(1), paid(14, "p2")], ("15", 2)),
        ([paid(14, "p2"), paid(1), paid(1)], ("15", 2)),
        ([paid(8), paid(8)], None),
        ([paid(8), paid(15)], None),  # the first one of an id counts
        ([paid(23, ccy="IDR"), paid(1, "p2")], None),
        ([paid(15, ccy="eur")], ("15", 1)),
        ([paid(20), paid(-6, "p2")], ("20", 1)),
        ([paid(-6, "p2"), paid(20), paid(1, "p3")], ("15", 3)),
    ],
)
@pytest.mark.parametrize("order_at", [0, None], ids=["order first", "payments first"])
def test_an_order_is_confirmed_when_it_is_paid_in_full_in_the_currency_of_orders(service, payments, says, order_at):
    events = [FRANZ, *payments]
    events.insert(1 if order_at == 0 else len(events), service.order())
    service.send(*events)

    email = service.pending["o1/validated"].email if service.pending else None
    if payments[-1].amount == -6 and order_at is None:
        assert email is None  # refunded before the order arrived
    else:
        assert (email and (str(email.paid), email.payments)) == says


def test_an_order_of_value_zero_is_confirmed_at_once(service):
    service.send(FRANZ, service.order(price=0))

    assert service.pending["o1/validated"].email.paid == 0
    assert "There is nothing to pay." in text(service.pending["o1/validated"])


def text(addressed, currency="EUR") -> str:
    return compose(addressed, "shop@example.org", currency).get_body(("plain",)).get_content()


def test_an_email_formats_amounts_with_the_decimal_places_of_the_currency(service):
    service.send(FRANZ, service.order(price="5.5"), paid("16.25"), paid("0.25", "p2"))
    addressed = service.pending["o1/validated"]

    assert "3 x UNDERPANTS at 5.50 EUR each, 16.50 EUR in all" in text(addressed)
    assert "We have your 2 payments of 16.50 EUR in all." in text(addressed)
    assert "at 5.500 KWD each" in text(addressed, "KWD")


def test_ignored_payments_are_counted(service):
    service.send(paid(23, ccy="IDR"), paid(1, "p2"), paid(2, "p2"))

    assert service.counted == {"payment in another currency": 1, "payment differs": 1}


def test_an_email_is_dated_by_the_message_that_made_it_due(service):
    service.send(service.order(), PAID)
    due = service.topology.now
    service.topology.advance(timedelta(seconds=30))
    service.send(FRANZ)

    assert service.pending["o1/validated"].email.at == due


@pytest.mark.parametrize("milliseconds", [1_577_836_800, 4_000_000_000_000])
def test_an_implausible_timestamp_does_not_date_an_email(service, milliseconds):
    """Timestamps of a producer that writes seconds instead of milliseconds, or of another century."""
    service.send(FRANZ, service.order())
    topology, key = service.topology, PAID.id.encode()
    partition = partition_of(key, topology.partitions)
    topology.write(Write(PAYMENTS.name, partition, key, PAID.to_json()))
    log = topology.topics[TopicPartition(PAYMENTS.name, partition)]
    log[-1] = log[-1]._replace(timestamp_ms=milliseconds)
    topology.run()

    assert service.pending["o1/validated"].email.at == topology.now


# Many e-mails to one customer, and rows of earlier versions


@pytest.mark.parametrize("comes", ["in time", "too late", "deleted during delivery"])
def test_a_queued_email_costs_the_same_however_many_wait_for_the_customer(monkeypatch, comes):
    service, many = EmailService(), 3000
    batches = record_row_sizes(service.topology, monkeypatch)
    for n in range(many):
        failed = order(f"o{n:04}", customer_id=15, state=OrderState.FAILED, created_at=service.topology.now)
        service.topology.send(ORDERS, failed)
    sizes = [sum(batch) for batch in batches]
    assert max(sizes[many // 2 :]) < 1.1 * max(sizes[: many // 2]) < 3000

    batches.clear()
    if comes == "too late":
        service.topology.advance(timedelta(seconds=61))
    partition = partition_of(b"15", service.topology.partitions)
    service.topology.write(Write(CUSTOMERS.name, partition, b"15", FRANZ.to_json()))
    if comes == "deleted during delivery":
        service.topology.write(Write(CUSTOMERS.name, partition, b"15", None))
    service.topology.run()
    service.topology.advance(timedelta(seconds=61))

    sent = {"in time": many, "too late": 0, "deleted during delivery": SLICE}[comes]
    assert len(service.pending) == sent
    assert service.counted == ({"unknown customer": many - sent} if sent < many else {})
    assert max(map(len, batches)) <= 6 * SLICE + 10
    service.topology.advance(timedelta(seconds=61))
    assert service.rows(QUEUE.table.name) == 0


def test_emails_that_arrive_during_the_delivery_of_a_queue_are_delivered_after_it():
    service = EmailService()
    for n in range(150):
        service.send(order(f"o{n}", customer_id=15, state=OrderState.FAILED, created_at=service.topology.now))
    topology = service.topology
    events = [FRANZ, order("last", customer_id=15, state=OrderState.FAILED, created_at=topology.now)]
    for topic, event in ((CUSTOMERS, events[0]), (ORDERS, events[1])):
        key = topic.key(event).encode()
        topology.write(Write(topic.name, partition_of(key, topology.partitions), key, event.to_json()))
    topology.run()

    assert len(service.pending) == 151
    assert service.rows(QUEUE.table.name) == 0


@pytest.mark.parametrize("comes", [True, False])
def test_emails_queued_by_an_earlier_version_are_delivered(comes):
    service = EmailService()
    topology = service.topology
    partition, until = partition_of(b"15", topology.partitions), topology.now + timedelta(seconds=60)
    email = Email(kind=EmailKind.SHIPPED, order=service.order(OrderState.SHIPPED))
    old = LegacyQueue(emails=(email,), until=(until,)).to_json().replace(b',"payments":0', b"")
    store = topology.workers[0].stores.open(LEGACY_QUEUES.name, partition)
    store.apply({b"15": old}, 0)
    timers = {b"customer/15": ScheduledTimer(at=until).to_json()}
    topology.workers[0].stores.open("email-timers", partition).apply(timers, 0)
    topology.workers[0].timers.apply("email-timers", partition, timers)
    service.send(order("o2", customer_id=15, state=OrderState.FAILED, created_at=topology.now))
    if comes:
        service.send(FRANZ)
    topology.advance(timedelta(seconds=61))

    assert sorted(service.pending) == (["o1/shipped", "o2/failed"] if comes else [])
    assert service.rows(QUEUE.table.name) + service.rows(LEGACY_QUEUES.name) == 0
    if comes:
        message = compose(service.pending["o1/shipped"], "shop@example.org")
        assert message["Date"] == "Wed, 01 Jan 2020 00:00:00 +0000"  # of the order's creation


def test_stored_rows_keep_the_json_fields_of_earlier_versions():
    email = Email(kind=EmailKind.FAILED, order=order("o1"))
    now = email.order.created_at
    addressed = AddressedEmail(email=email, customer=FRANZ)
    rows = (addressed, QueuedEmail(email=email, until=now), LegacyQueue(emails=(email,), until=(now,)))
    assert [sorted(json.loads(row.to_json())) for row in rows] == [
        ["customer", "letter"],
        ["letter", "until"],
        ["letters", "until"],
    ]
    assert json.loads(Join(issued=(EmailKind.FAILED,)).to_json())["told"] == ["failed"]
    assert AddressedEmail.from_json(addressed.to_json()) == addressed


@pytest.mark.parametrize(("amount", "expected"), [(15, 1), (10, 0)])
@pytest.mark.parametrize("then", ["another payment", "the order again", "time"])
def test_a_join_row_of_an_earlier_version_is_confirmed_if_it_is_paid(service, amount, expected, then):
    service.send(FRANZ)
    topology, at = service.topology, service.topology.now.isoformat()
    join = {"order": service.order().model_dump(mode="json", by_alias=True), "validatedAt": at, "paidAt": at}
    join["payment"] = paid(amount).model_dump(mode="json", by_alias=True)
    partition = partition_of(b"o1", topology.partitions)
    store = topology.workers[0].stores.open
    store(JOINS.rows.name, partition).apply({b"o1": json.dumps(join).encode()}, 0)
    hour = str(int(topology.now.timestamp() // 3600)).encode()
    store(JOINS.hours.name, partition).apply({hour: b'{"last":"o1"}'}, 0)
    timers = {hour: ScheduledTimer(at=topology.now + timedelta(days=7, hours=1)).to_json()}
    store("email-timers", partition).apply(timers, 0)
    topology.workers[0].timers.apply("email-timers", partition, timers)
    match then:
        case "another payment":
            service.send(paid(0, "p2"))
        case "the order again":
            service.send(service.order())
            service.send(paid(amount))
        case "time":
            topology.advance(timedelta(days=8))

    assert len(service.pending) == expected
    service.send(paid(5, "p3"))
    assert len(service.pending) == 1


def test_an_email_enqueued_again_keeps_the_time_of_the_first_enqueue():
    service = EmailService()
    pending = service.definition.pending
    service.send(FRANZ, service.order(OrderState.SHIPPED))
    first = service.topology.row(pending, "o1/shipped")
    service.topology.advance(timedelta(hours=1))
    service.topology.call(
        pending,
        "15",
        lambda ctx: ctx.enqueue(service.definition.side_effects[0], "o1/shipped", service.pending["o1/shipped"]),
    )

    assert first.since == service.topology.now - timedelta(hours=1)
    assert service.topology.row(pending, "o1/shipped") == first
