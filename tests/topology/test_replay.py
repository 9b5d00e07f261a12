"""Replayed messages: all that follows from them is marked, repeats no side effect, and changes nothing decided."""

from datetime import timedelta

import pytest

from orders_service.state import ORDERS_VIEW
from runtime.model.records import REPLAYED_FROM, REPLAYS, SIDE_EFFECTS
from runtime.model.service import SUPPRESSED
from runtime.testing import TopologyTestDriver
from schemas.messages import OrderState, Payment
from schemas.topics import CUSTOMERS, FULFILMENTS, HOME_CHECKINS, ORDER_VALIDATIONS, ORDERS, ORDERS_ENRICHED, PAYMENTS
from tests.samples import FRANZ, checked_in
from tests.topology.conftest import Shop, emails_of, order_services
from validators.inventory.state import STOCK

CUSTOMER = FRANZ.model_copy(update={"id": 1})
MARKS = ((REPLAYED_FROM, b"orders/2/17"), (REPLAYS, b"1"))


class ReplayShop(Shop):
    """All services of an order, and replays."""

    def __init__(self, topology, email) -> None:
        super().__init__(topology)
        self.email = email

    def replay(self, topic, *messages, marks=MARKS):
        for message in messages:
            self.topology.send_raw(topic, topic.key(message).encode(), message.to_json(), *marks)

    def marked(self, topic):
        """The replay headers of each record of a topic."""
        return [dict(record.headers).get(REPLAYED_FROM) for record in self.topology.records(topic.name)]

    @property
    def emails(self):
        return sorted(self.topology.pending(self.email))

    @property
    def suppressed(self):
        return sum(worker.events["email", SUPPRESSED] for worker in self.topology.workers)


def opened(deployment="composed", **changes):
    services = order_services(**changes)
    fuse = deployment != "composed, not fused"
    driver = TopologyTestDriver(*services, apart=deployment == "apart", fuse=fuse)
    return ReplayShop(driver, emails_of(services))


@pytest.fixture(params=["composed", "composed, not fused", "apart"])
def shop(request):
    shop = opened(request.param)
    shop.topology.send(CUSTOMERS, CUSTOMER)
    shop.stock(JUMPERS=10)
    return shop


def everything(shop):
    return shop.outcome(), shop.topology.row(STOCK, "JUMPERS"), shop.emails


def test_all_that_follows_from_a_replayed_order_is_marked(shop):
    shop.replay(ORDERS, shop.order())
    shop.replay(PAYMENTS, Payment(id="p1", order_id="o1", ccy="EUR", amount=5))
    shop.replay(HOME_CHECKINS, checked_in())
    assert shop.outcome().state is OrderState.SHIPPED
    for topic in (ORDERS, ORDER_VALIDATIONS, ORDERS_ENRICHED, FULFILMENTS):
        assert set(shop.marked(topic)) == {b"orders/2/17"}, topic.name


def test_a_replay_has_no_side_effects(shop):
    shop.replay(ORDERS, shop.order())
    shop.replay(PAYMENTS, Payment(id="p1", order_id="o1", ccy="EUR", amount=5))
    shop.replay(HOME_CHECKINS, checked_in())
    assert shop.outcome().state is OrderState.SHIPPED
    assert shop.emails == []
    assert shop.suppressed == 2


def test_a_replay_has_the_side_effects_that_are_asked_for(shop):
    marks = (*MARKS, (SIDE_EFFECTS, b"perform"))
    shop.replay(ORDERS, shop.order(quantity=11), marks=marks)
    assert shop.emails == ["o1/failed"]
    assert shop.suppressed == 0


def test_another_value_of_the_header_performs_nothing(shop):
    shop.replay(ORDERS, shop.order(quantity=11), marks=(*MARKS, (SIDE_EFFECTS, b"maybe")))
    assert shop.emails == []


def test_other_orders_are_not_marked(shop):
    shop.replay(ORDERS, shop.order())
    shop.post(shop.order("o2", quantity=11))
    of_second = [r for r in shop.topology.records(ORDERS.name) if r.key == b"o2"]
    assert [REPLAYED_FROM in dict(r.headers) for r in of_second] == [False, False]
    assert shop.emails == ["o2/failed"]


def test_an_order_that_misses_its_deadline_after_a_replay_is_marked():
    shop = opened(required_checks="FRAUD_CHECK,CREDIT_CHECK")
    shop.topology.send(CUSTOMERS, CUSTOMER)
    shop.replay(ORDERS, shop.order())
    shop.topology.advance(timedelta(hours=1))
    assert shop.history() == ["CREATED", "FAILED"]
    assert shop.marked(ORDERS) == [b"orders/2/17"] * 2
    assert shop.emails == []


@pytest.mark.parametrize(
    "again",
    [
        (ORDERS, "CREATED"),
        (ORDERS, "VALIDATED"),
        (ORDERS, "SHIPPED"),
        (ORDER_VALIDATIONS, None),
        (PAYMENTS, None),
        (HOME_CHECKINS, None),
        (FULFILMENTS, None),
        (CUSTOMERS, None),
    ],
    ids=lambda again: f"{again[0].name} {again[1] or ''}",
)
def test_a_replayed_stage_of_a_shipped_order_changes_nothing(shop, again):
    shop.post(shop.order())
    shop.topology.send(PAYMENTS, Payment(id="p1", order_id="o1", ccy="EUR", amount=5))
    shop.topology.send(HOME_CHECKINS, checked_in())
    before = everything(shop)
    assert before[0].state is OrderState.SHIPPED
    topic, state = again
    shop.replay(topic, *[m for m in shop.topology.values(topic) if state is None or str(m.state) == state])
    after = everything(shop)
    assert after[0].model_copy(update={"late": 0}) == before[0].model_copy(update={"late": 0})
    assert after[1:] == before[1:]


def test_an_email_that_waits_is_sent_when_its_customer_is_replayed(shop):
    shop.post(shop.order(customer_id=2, quantity=11))
    assert shop.emails == []
    shop.replay(CUSTOMERS, FRANZ.model_copy(update={"id": 2}))
    assert shop.emails == ["o1/failed"]


def test_an_email_of_a_replay_that_waits_is_not_sent_when_its_customer_comes(shop):
    shop.replay(ORDERS, shop.order(customer_id=2, quantity=11))
    shop.topology.send(CUSTOMERS, FRANZ.model_copy(update={"id": 2}))
    assert shop.emails == []
    assert shop.suppressed == 1


def test_a_replay_is_not_observed_in_durations(shop):
    shop.replay(ORDERS, shop.order())
    assert not any(worker.observations for worker in shop.topology.workers)
    shop.post(shop.order("o2"))
    assert any(worker.observations for worker in shop.topology.workers)


def test_a_timer_of_a_kind_that_does_not_inherit_is_not_marked(shop):
    """The rows of an hour expire by one timer, whoever set it."""
    shop.replay(ORDERS, shop.order())
    shop.post(shop.order("o2", quantity=11))
    shop.topology.advance(timedelta(days=8))
    assert shop.topology.row(ORDERS_VIEW, "o2").decided
