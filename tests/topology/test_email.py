"""Letters: which are due, for whom, and once."""

import json
from datetime import timedelta

import pytest

from email_service.app import build
from email_service.compose import compose
from email_service.state import JOINS, LEGACY_QUEUES, PAYMENT_ROWS, QUEUE, Email, EmailKind, LegacyQueue
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.model.records import TopicPartition, Write
from runtime.model.service import ScheduledTimer
from runtime.state.queues import SLICE
from runtime.testing import TopologyTestDriver
from schemas.messages import Customer, Order, OrderState, Payment
from schemas.topics import BY_LEVEL, CUSTOMERS, ORDERS, ORDERS_ENRICHED, PAYMENTS
from tests.samples import order
from tests.topology.conftest import logged

FRANZ = Customer(
    id=15, first_name="Franz", last_name="Kafka", email="franz@example.org", address="Oppelthaus, Praha", level="gold"
)
PAID = Payment(id="Payment:1234", order_id="o1", ccy="EUR", amount=1000)


class Office:
    """The email service in memory, and what reaches it."""

    def __init__(self, **settings) -> None:
        self.service = build(Settings(**settings)).service
        self.topology = TopologyTestDriver(self.service)

    def order(self, state: OrderState = OrderState.VALIDATED, **changes) -> Order:
        content = {"customer_id": 15, "product": "UNDERPANTS", "quantity": 3, "price": 5, **changes}
        return order("o1", created_at=self.topology.now, **content).model_copy(update={"state": state})

    def hear(self, *events) -> None:
        topics = {Order: ORDERS, Payment: PAYMENTS, Customer: CUSTOMERS}
        for event in events:
            self.topology.send(topics[type(event)], event)

    def rows(self, table: str) -> int:
        stores = self.topology.workers[0].stores
        return sum(len(stores.open(table, partition).rows) for partition in range(self.topology.partitions))

    @property
    def letters(self) -> dict:
        return self.topology.pending(self.service.side_effects[0])

    @property
    def counted(self) -> dict[str, int]:
        return {event: count for worker in self.topology.workers for (_, event), count in worker.events.items()}


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.mark.parametrize("sequence", ["opc", "ocp", "poc", "pco", "cop", "cpo"])
def test_order_payment_and_customer_make_one_letter_in_whatever_order_they_come(office, sequence):
    office.hear(*({"o": office.order(), "p": PAID, "c": FRANZ}[one] for one in sequence))

    assert list(office.letters) == ["o1/validated"]
    addressed = office.letters["o1/validated"]
    assert (addressed.email.order.id, addressed.email.payment, addressed.customer) == ("o1", PAID, FRANZ)


@pytest.mark.parametrize("first", ["order", "payment"])
@pytest.mark.parametrize("apart", [timedelta(seconds=80), timedelta(days=8), timedelta(days=89)])
def test_an_order_is_confirmed_once_it_is_paid_however_late(office, first, apart):
    events = [office.order(), PAID]
    office.hear(FRANZ)
    office.hear(events[first == "payment"])
    office.topology.advance(apart)
    office.hear(events[first == "order"])

    assert list(office.letters) == ["o1/validated"]
    assert office.counted == {}


@pytest.mark.parametrize(
    ("first", "event"),
    [("order", "unpaid order forgotten"), ("payment", "payment without order forgotten")],
)
def test_what_stays_unpaid_is_forgotten_in_the_end_and_counted(office, first, event):
    events = [office.order(), PAID]
    office.hear(FRANZ)
    office.hear(events[first == "payment"])
    office.topology.advance(timedelta(days=99))

    assert office.topology.row(JOINS.rows, "o1") is None
    office.topology.advance(timedelta(days=8))
    assert office.rows(PAYMENT_ROWS.rows.name) == 0
    assert office.counted == {event: 1}


def test_how_long_an_unpaid_order_is_remembered_is_a_setting():
    office = Office(email_unpaid_days=7)
    office.hear(FRANZ, office.order())
    office.topology.advance(timedelta(days=8))
    assert office.counted == {"unpaid order forgotten": 1}


@pytest.mark.parametrize("fuse", [True, False])
def test_who_reads_it_late_takes_no_payment_for_a_late_one(fuse):
    """The service was down for an hour, and finds a payment that was made with its order."""
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


def test_the_window_is_a_setting():
    office = Office(email_window_s=3 * 24 * 3600)
    office.hear(office.order(), PAID)
    office.topology.advance(timedelta(days=2))
    office.hear(FRANZ)

    assert list(office.letters) == ["o1/validated"]


def test_a_customer_who_comes_too_late_gets_no_letter_and_leaves_nothing_behind(office):
    office.hear(office.order(), PAID)
    office.topology.advance(timedelta(seconds=61))
    office.hear(FRANZ)

    assert office.letters == {}
    assert office.rows(QUEUE.table.name) == 0
    assert office.counted == {"unknown customer": 2}


def test_a_failed_order_needs_no_payment_and_its_letter_has_the_reasons(office):
    failed = office.order(OrderState.FAILED).model_copy(update={"reasons": ("FRAUD_CHECK: too much",)})
    office.hear(FRANZ, failed)

    assert office.letters["o1/failed"].email.order.reasons == ("FRAUD_CHECK: too much",)


def test_validated_and_shipped_are_two_letters_and_each_is_written_once(office):
    for _ in range(2):
        office.hear(FRANZ, office.order(), PAID, office.order(OrderState.SHIPPED))

    assert sorted(office.letters) == ["o1/shipped", "o1/validated"]
    assert len(office.topology.values(ORDERS_ENRICHED)) == 1


@pytest.mark.parametrize(
    ("level", "topic"), [("platinum", "platinum"), ("gold", "gold"), ("silver", "silver"), ("tin", "bronze")]
)
def test_an_order_is_enriched_with_its_customer_and_sorted_by_level(office, level, topic):
    office.hear(FRANZ.model_copy(update={"level": level}), office.order())

    [enriched] = office.topology.values(ORDERS_ENRICHED)
    assert (enriched.id, enriched.customer_id, enriched.customer_level) == ("o1", 15, level)
    assert {str(k): len(office.topology.values(t)) for k, t in BY_LEVEL.items()} == {
        one: int(one == topic) for one in ("platinum", "gold", "silver", "bronze")
    }
    assert office.counted == ({"unknown level": 1} if level == "tin" else {})


def test_a_customer_who_is_deleted_is_forgotten(office):
    office.hear(FRANZ)
    office.topology.send_raw(CUSTOMERS, b"15", None)
    office.hear(office.order(), PAID)

    assert office.letters == {}


def test_joins_are_forgotten_after_a_week(office):
    office.hear(FRANZ, office.order(), PAID)
    office.topology.advance(timedelta(days=7, hours=2))

    assert office.topology.row(JOINS.rows, "o1") is None


def test_only_the_letters_whose_time_is_over_are_given_up(office):
    office.hear(office.order())
    office.topology.advance(timedelta(seconds=40))
    office.hear(PAID)
    office.topology.advance(timedelta(seconds=30))
    office.hear(FRANZ)

    assert list(office.letters) == ["o1/validated"]
    assert office.topology.values(ORDERS_ENRICHED) == []


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
def test_an_order_is_confirmed_when_it_is_paid_in_full_in_its_currency(office, payments, says, order_at):
    events = [FRANZ, *payments]
    events.insert(1 if order_at == 0 else len(events), office.order())
    office.hear(*events)

    letter = office.letters["o1/validated"].email if office.letters else None
    if payments[-1].amount == -6 and order_at is None:
        assert letter is None  # taken back before there was an order
    else:
        assert (letter and (str(letter.paid), letter.payments)) == says


def test_an_order_that_costs_nothing_is_confirmed_at_once(office):
    office.hear(FRANZ, office.order(price=0))

    assert office.letters["o1/validated"].email.paid == 0
    assert "There is nothing to pay." in text(office.letters["o1/validated"])


def text(addressed, currency="EUR") -> str:
    return compose(addressed, "shop@example.org", currency).get_body(("plain",)).get_content()


def test_a_letter_names_amounts_with_the_digits_of_their_currency(office):
    office.hear(FRANZ, office.order(price="5.5"), paid("16.25"), paid("0.25", "p2"))
    addressed = office.letters["o1/validated"]

    assert "3 x UNDERPANTS at 5.50 EUR each, 16.50 EUR in all" in text(addressed)
    assert "We have your 2 payments of 16.50 EUR in all." in text(addressed)
    assert "at 5.500 KWD each" in text(addressed, "KWD")


def test_payments_that_do_not_count_are_counted(office):
    office.hear(paid(23, ccy="IDR"), paid(1, "p2"), paid(2, "p2"))

    assert office.counted == {"payment in another currency": 1, "payment differs": 1}


def test_letters_have_the_date_of_what_made_them_due(office):
    office.hear(office.order(), PAID)
    due = office.topology.now
    office.topology.advance(timedelta(seconds=30))
    office.hear(FRANZ)

    assert office.letters["o1/validated"].email.at == due


@pytest.mark.parametrize("milliseconds", [1_577_836_800, 4_000_000_000_000])
def test_a_clock_that_cannot_be_right_dates_no_letter(office, milliseconds):
    """A producer whose timestamps are seconds, or of another century."""
    office.hear(FRANZ, office.order())
    topology, key = office.topology, PAID.id.encode()
    partition = partition_of(key, topology.partitions)
    topology.write(Write(PAYMENTS.name, partition, key, PAID.to_json()))
    log = topology.topics[TopicPartition(PAYMENTS.name, partition)]
    log[-1] = log[-1]._replace(timestamp_ms=milliseconds)
    topology.run()

    assert office.letters["o1/validated"].email.at == topology.now


# Many letters for one customer, and rows of earlier versions


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("comes", ["in time", "too late", "deleted meanwhile"])
def test_letters_for_one_customer_cost_the_same_each_however_many_wait(monkeypatch, guarantee, comes):
    office, many = Office(processing_guarantee=guarantee), 3000
    batches = logged(office.topology, monkeypatch)
    for n in range(many):
        failed = order(f"o{n:04}", customer_id=15, state=OrderState.FAILED, created_at=office.topology.now)
        office.topology.send(ORDERS, failed)
    sizes = [sum(batch) for batch in batches]
    assert max(sizes[many // 2 :]) < 1.1 * max(sizes[: many // 2]) < 3000

    batches.clear()
    if comes == "too late":
        office.topology.advance(timedelta(seconds=61))
    partition = partition_of(b"15", office.topology.partitions)
    office.topology.write(Write(CUSTOMERS.name, partition, b"15", FRANZ.to_json()))
    if comes == "deleted meanwhile":
        office.topology.write(Write(CUSTOMERS.name, partition, b"15", None))
    office.topology.run()
    office.topology.advance(timedelta(seconds=61))

    sent = {"in time": many, "too late": 0, "deleted meanwhile": SLICE}[comes]
    assert len(office.letters) == sent
    if guarantee == "exactly_once":  # else those that have gone out are told from others by their customer alone
        assert office.counted == ({"unknown customer": many - sent} if sent < many else {})
    assert max(map(len, batches)) <= 6 * SLICE + 10
    office.topology.advance(timedelta(seconds=61))
    assert office.rows(QUEUE.table.name) == 0


def test_letters_that_come_while_the_queue_is_delivered_go_out_behind_it():
    office = Office()
    for n in range(150):
        office.hear(order(f"o{n}", customer_id=15, state=OrderState.FAILED, created_at=office.topology.now))
    topology = office.topology
    events = [FRANZ, order("last", customer_id=15, state=OrderState.FAILED, created_at=topology.now)]
    for topic, event in ((CUSTOMERS, events[0]), (ORDERS, events[1])):
        key = topic.key(event).encode()
        topology.write(Write(topic.name, partition_of(key, topology.partitions), key, event.to_json()))
    topology.run()

    assert len(office.letters) == 151
    assert office.rows(QUEUE.table.name) == 0


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("comes", [True, False])
def test_letters_that_an_earlier_version_left_waiting_are_not_lost(guarantee, comes):
    office = Office(processing_guarantee=guarantee)
    topology = office.topology
    partition, until = partition_of(b"15", topology.partitions), topology.now + timedelta(seconds=60)
    letter = Email(kind=EmailKind.SHIPPED, order=office.order(OrderState.SHIPPED))
    old = LegacyQueue(letters=(letter,), until=(until,)).to_json().replace(b',"payments":0', b"")
    store = topology.workers[0].stores.open(LEGACY_QUEUES.name, partition)
    store.apply({b"15": old}, 0)
    timers = {b"customer/15": ScheduledTimer(at=until).to_json()}
    topology.workers[0].stores.open("email-timers", partition).apply(timers, 0)
    topology.workers[0].timers.apply("email-timers", partition, timers)
    office.hear(order("o2", customer_id=15, state=OrderState.FAILED, created_at=topology.now))
    if comes:
        office.hear(FRANZ)
    topology.advance(timedelta(seconds=61))

    assert sorted(office.letters) == (["o1/shipped", "o2/failed"] if comes else [])
    assert office.rows(QUEUE.table.name) + office.rows(LEGACY_QUEUES.name) == 0
    if comes:
        message = compose(office.letters["o1/shipped"], "shop@example.org")
        assert message["Date"] == "Wed, 01 Jan 2020 00:00:00 +0000"  # of the order, for want of a better one


@pytest.mark.parametrize(("amount", "letters"), [(15, 1), (10, 0)])
@pytest.mark.parametrize("then", ["another payment", "the order again", "time"])
def test_a_join_of_an_earlier_version_is_confirmed_if_it_is_paid(office, amount, letters, then):
    office.hear(FRANZ)
    topology, at = office.topology, office.topology.now.isoformat()
    join = {"order": office.order().model_dump(mode="json", by_alias=True), "validatedAt": at, "paidAt": at}
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
            office.hear(paid(0, "p2"))
        case "the order again":
            office.hear(office.order())
            office.hear(paid(amount))
        case "time":
            topology.advance(timedelta(days=8))

    assert len(office.letters) == letters
    office.hear(paid(5, "p3"))
    assert len(office.letters) == 1


def test_a_letter_that_is_asked_for_again_counts_from_when_it_was_first():
    service = Office()
    pending = service.service.pending
    service.hear(FRANZ, service.order(OrderState.SHIPPED))
    first = service.topology.row(pending, "o1/shipped")
    service.topology.advance(timedelta(hours=1))
    service.topology.call(
        pending,
        "15",
        lambda ctx: ctx.enqueue(service.service.side_effects[0], "o1/shipped", service.letters["o1/shipped"]),
    )

    assert first.since == service.topology.now - timedelta(hours=1)
    assert service.topology.row(pending, "o1/shipped") == first
