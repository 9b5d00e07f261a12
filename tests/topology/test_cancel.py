"""Cancelling: an order ends in one outcome, stock and money come back once, the customer is told once."""

from collections import Counter
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import email_service.app
import fulfilment_service.app
from fulfilment_service.state import PROGRESS
from orders_service.state import ORDERS_VIEW
from runtime.common.settings import Settings
from runtime.testing import TopologyTestDriver
from schemas.messages import Cancellation, Customer, OrderState, Payment
from schemas.topics import (
    CANCELLATIONS,
    CHECKIN_REJECTIONS,
    CUSTOMERS,
    HOME_CHECKINS,
    ORDERS,
    PAYMENTS,
    REFUNDS,
)
from tests.samples import checked_in
from tests.topology.conftest import CORE_APPS, Shop
from validators.inventory.state import STOCK

FRANZ = Customer(id=7, first_name="Franz", last_name="Kafka", email="franz@example.org", address="Praha", level="gold")


class CancellingShop(Shop):
    """The core, fulfilment and e-mail, with the command that DELETE runs."""

    def __init__(self, topology, services) -> None:
        super().__init__(topology)
        orders = next(s for s in services if s.name == "orders")
        self.aggregator = next(i.processor.__self__ for i in orders.inputs if i.topic is CANCELLATIONS)
        self.email = next(s for s in services if s.name == "email").side_effects[0]

    def cancel(self, order_id="o1"):
        return self.topology.call(ORDERS_VIEW, order_id, partial(self.aggregator.cancel, order_id, "changed my mind"))

    def place(self, **content):
        self.post(self.order("o1", customer_id=7, product="JUMPERS", quantity=3, price=5, **content))

    def pay(self, amount=15, id_="p1", ccy="EUR"):
        self.topology.send(PAYMENTS, Payment(id=id_, order_id="o1", ccy=ccy, amount=amount))

    def check_in(self, id_="c1"):
        self.topology.send(HOME_CHECKINS, checked_in(id_))

    @property
    def refunds(self):
        return {r.refund_id: (str(r.ccy), r.amount) for r in self.topology.values(REFUNDS)}

    @property
    def emails(self):
        return sorted(key.partition("/")[2] for key in self.topology.pending(self.email))


def opened(apart=False, **changes) -> CancellingShop:
    apps = [*CORE_APPS.values(), fulfilment_service.app, email_service.app]
    services = [app.build(Settings(**changes)).service for app in apps]
    shop = CancellingShop(TopologyTestDriver(*services, apart=apart), services)
    shop.topology.send(CUSTOMERS, FRANZ)
    shop.stock(JUMPERS=10)
    return shop


@pytest.fixture(params=[False, True], ids=["composed", "apart"])
def shop(request):
    return opened(request.param)


def test_a_validated_order_is_cancelled_once(shop):
    shop.place()
    assert shop.cancel().state is OrderState.CANCELLED
    assert shop.cancel().state is OrderState.CANCELLED
    assert shop.history() == ["CREATED", "VALIDATED", "CANCELLED"]
    assert shop.outcome().reasons == ("changed my mind",)
    assert shop.reserved("JUMPERS") == 0
    assert shop.emails == ["cancelled"]
    assert shop.refunds == {}


def test_an_undecided_order_is_cancelled_and_late_verdicts_change_nothing():
    shop = opened(required_checks="FRAUD_CHECK,CREDIT_CHECK")
    shop.place()
    shop.cancel()
    shop.topology.advance(timedelta(hours=1))
    assert shop.history() == ["CREATED", "CANCELLED"]


def test_an_unknown_or_failed_order_is_not_cancelled(shop):
    assert shop.cancel() is None
    shop.post(shop.order("o1", product="UNICORN", quantity=3))
    assert shop.cancel().state is OrderState.FAILED
    assert shop.history() == ["CREATED", "FAILED"]


def test_a_shipped_order_is_not_cancelled(shop):
    shop.place()
    shop.pay()
    shop.check_in()
    assert shop.cancel().state is OrderState.SHIPPED
    shop.topology.send(CANCELLATIONS, Cancellation(order_id="o1", reason="late"))
    assert shop.history() == ["CREATED", "VALIDATED", "SHIPPED"]
    assert shop.refunds == {}


def test_what_was_paid_before_and_after_is_refunded_once(shop):
    shop.place()
    shop.pay(20)
    shop.pay(-3, "back")
    shop.pay(7, "dollars", "USD")
    shop.cancel()
    assert shop.refunds == {"o1": ("EUR", 17), "o1/USD": ("USD", 7)}
    shop.pay(-17, "refund carried out")
    shop.pay(4, "late")
    shop.pay(4, "late")
    assert shop.refunds == {"o1": ("EUR", 17), "o1/USD": ("USD", 7), "late": ("EUR", 4)}
    assert len(shop.topology.values(REFUNDS)) == 3


def test_check_ins_of_a_cancelled_order_are_rejected(shop):
    shop.place()
    shop.cancel()
    shop.check_in("late")
    assert {(r.event_id, r.reason) for r in shop.topology.values(CHECKIN_REJECTIONS)} == {
        ("late", "the order was cancelled")
    }


@pytest.mark.parametrize(("paid", "state"), [(0, "CANCELLED"), (14, "CANCELLED"), (15, "VALIDATED")])
def test_an_order_that_is_not_paid_in_time_is_cancelled(paid, state):
    shop = opened(payment_deadline_s=1800)
    shop.place()
    if paid:
        shop.pay(paid)
    shop.topology.advance(timedelta(seconds=1799))
    assert shop.outcome().state is OrderState.VALIDATED
    shop.topology.advance(timedelta(seconds=2))
    assert shop.outcome().state == state
    if state == "CANCELLED":
        assert shop.outcome().reasons == ("not paid within 1800 s",)
        assert shop.refunds == ({"o1": ("EUR", paid)} if paid else {})


def test_without_a_payment_deadline_an_unpaid_order_waits(shop):
    shop.place()
    shop.topology.advance(timedelta(days=30))
    assert shop.outcome().state is OrderState.VALIDATED


STEPS = st.lists(
    st.sampled_from(["place", "cancel", "request", "pay", "pay more", "check in", "wait", "replay"]), max_size=12
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.booleans())
def test_whatever_races_an_order_ends_in_one_outcome(steps, apart):
    shop = opened(apart, payment_deadline_s=600)
    answers = []
    for step in [*steps, "wait"]:
        if step == "place":
            shop.place()
        elif step == "cancel":
            order = shop.cancel()
            answers.append(order.state if order else None)
        elif step == "request":
            shop.topology.send(CANCELLATIONS, Cancellation(order_id="o1", reason="asked for"))
        elif step == "pay":
            shop.pay()
        elif step == "pay more":
            shop.pay(2, "p2")
        elif step == "check in":
            shop.check_in()
        elif step == "wait":
            shop.topology.advance(timedelta(seconds=601))
        elif step == "replay":
            shop.topology.send(ORDERS, *shop.topology.values(ORDERS))
    first = list(dict.fromkeys(shop.history()))
    assert first in ([], ["CREATED", "VALIDATED"], *(["CREATED", "VALIDATED", end] for end in ("SHIPPED", "CANCELLED")))
    stock, progress = shop.topology.row(STOCK, "JUMPERS"), shop.topology.row(PROGRESS, "o1")
    ended = first[-1] if first else None
    assert (stock.count, stock.reserved) == ((7, 0) if ended == "SHIPPED" else (10, 3 if ended == "VALIDATED" else 0))
    assert max(Counter(shop.emails).values(), default=0) <= 1
    assert ("cancelled" in shop.emails) == (ended == "CANCELLED")
    if "replay" not in steps and ended:
        assert shop.history().count(ended) == 1
    if OrderState.CANCELLED in answers:
        assert ended == "CANCELLED"
    paid = progress.sum("EUR") if progress else 0
    assert sum(amount for _, amount in shop.refunds.values()) == (paid if ended == "CANCELLED" else 0)
