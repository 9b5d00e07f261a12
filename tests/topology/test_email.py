"""Letters: which are due, for whom, and once."""

from datetime import timedelta

import pytest
from samples import order

from email_service.app import build
from email_service.state import JOINS, WAITING
from runtime.partitioning import partition_of
from runtime.records import Write
from runtime.settings import Settings
from runtime.testing import Topology
from schemas.messages import Customer, Order, OrderState, Payment
from schemas.topics import BY_LEVEL, CUSTOMERS, ORDERS, ORDERS_ENRICHED, PAYMENTS

FRANZ = Customer(
    id=15, first_name="Franz", last_name="Kafka", email="franz@example.org", address="Oppelthaus, Praha", level="gold"
)
PAID = Payment(id="Payment:1234", order_id="o1", ccy="CZK", amount=1000)


class Office:
    """The email service in memory, and what reaches it."""

    def __init__(self, **settings) -> None:
        self.service = build(Settings(**settings)).service
        self.topology = Topology(self.service)

    def order(self, state: OrderState = OrderState.VALIDATED, **changes) -> Order:
        content = {"customer_id": 15, "product": "UNDERPANTS", "quantity": 3, "price": 5, **changes}
        return order("o1", created_at=self.topology.now, **content).model_copy(update={"state": state})

    def hear(self, *events) -> None:
        topics = {Order: ORDERS, Payment: PAYMENTS, Customer: CUSTOMERS}
        for event in events:
            self.topology.send(topics[type(event)], event)

    @property
    def letters(self) -> dict:
        return self.topology.pending(self.service.effects[0])

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
    assert (addressed.letter.order.id, addressed.letter.payment, addressed.customer) == ("o1", PAID, FRANZ)


@pytest.mark.parametrize("first", ["order", "payment"])
@pytest.mark.parametrize(("apart_s", "letters"), [(60, 1), (61, 0)])
def test_order_and_payment_meet_within_the_window_only(office, first, apart_s, letters):
    events = [office.order(), PAID]
    office.hear(FRANZ)
    office.hear(events[first == "payment"])
    office.topology.advance(timedelta(seconds=apart_s))
    office.hear(events[first == "order"])

    assert len(office.letters) == letters


@pytest.mark.parametrize("fuse", [True, False])
def test_who_reads_it_late_takes_no_payment_for_a_late_one(fuse):
    """The service was down for an hour, and finds a payment that was made with its order."""
    service = build(Settings()).service
    topology = Topology(service, fuse=fuse)
    topology.send(CUSTOMERS, FRANZ)
    validated = order("o1", customer_id=15, state=OrderState.VALIDATED)
    for topic, message in ((ORDERS, validated), (PAYMENTS, PAID)):
        key = topic.key(message).encode()
        topology.write(Write(topic.name, partition_of(key, topology.partitions), key, message.to_json()))
    topology.advance(timedelta(hours=1))
    topology.run()

    assert list(topology.pending(service.effects[0])) == ["o1/validated"]


def test_the_window_is_a_setting():
    office = Office(email_window_s=3 * 24 * 3600)
    office.hear(FRANZ, office.order())
    office.topology.advance(timedelta(days=2))
    office.hear(PAID)

    assert list(office.letters) == ["o1/validated"]


def test_a_customer_who_comes_too_late_gets_no_letter_and_leaves_nothing_behind(office):
    office.hear(office.order(), PAID)
    office.topology.advance(timedelta(seconds=61))
    office.hear(FRANZ)

    assert office.letters == {}
    assert office.topology.row(WAITING, "15") is None
    assert office.counted == {"unknown customer": 2}


def test_a_failed_order_needs_no_payment_and_its_letter_has_the_reasons(office):
    failed = office.order(OrderState.FAILED).model_copy(update={"reasons": ("FRAUD_CHECK: too much",)})
    office.hear(FRANZ, failed)

    assert office.letters["o1/failed"].letter.order.reasons == ("FRAUD_CHECK: too much",)


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


def test_a_letter_that_is_asked_for_again_counts_from_when_it_was_first():
    service = Office()
    pending = service.service.pending
    service.hear(FRANZ, service.order(OrderState.SHIPPED))
    first = service.topology.row(pending, "o1/shipped")
    service.topology.advance(timedelta(hours=1))
    service.topology.call(
        pending, "15", lambda ctx: ctx.perform(service.service.effects[0], "o1/shipped", service.letters["o1/shipped"])
    )

    assert first.since == service.topology.now - timedelta(hours=1)
    assert service.topology.row(pending, "o1/shipped") == first
