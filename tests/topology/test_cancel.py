"""Cancelling: an order ends in one outcome, stock and money come back once, the customer is told once."""

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fulfilment_service.app
from fulfilment_service.http import status
from fulfilment_service.state import PROGRESS
from orders_service.state import ORDERS_VIEW
from runtime.common.settings import Settings
from runtime.testing import TopologyTestDriver
from schemas.messages import Cancellation, Fulfilled, Need, OrderState, Payment
from schemas.topics import (
    CANCELLATIONS,
    CHECKIN_REJECTIONS,
    CUSTOMERS,
    FULFILMENTS,
    HOME_CHECKINS,
    ORDER_VALIDATIONS,
    ORDERS,
    PAYMENTS,
    REFUNDS,
)
from tests.samples import FRANZ, checked_in, order, verdict
from tests.topology.conftest import Shop, emails_of, order_services
from validators.inventory.state import STOCK


class CancellingShop(Shop):
    """The core, fulfilment and e-mail, with the command that DELETE runs."""

    def __init__(self, topology, services) -> None:
        super().__init__(topology)
        orders = next(s for s in services if s.name == "orders")
        self.aggregator = next(i.processor.__self__ for i in orders.inputs if i.topic is CANCELLATIONS)
        self.email = emails_of(services)

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
    services = order_services(**changes)
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


def test_a_repeated_cancelled_refunds_and_tells_nothing_again(shop):
    shop.place()
    shop.pay(4)
    shop.cancel()
    shop.topology.send(ORDERS, *shop.topology.values(ORDERS))
    assert [(r.refund_id, r.amount) for r in shop.topology.values(REFUNDS)] == [("o1", Decimal(4))]
    assert shop.emails == ["cancelled"]
    assert shop.topology.row(STOCK, "JUMPERS").reserved == 0


def test_a_fulfilment_that_arrives_after_the_cancellation_ships_nothing(shop):
    shop.place()
    shop.cancel()
    shop.topology.send(FULFILMENTS, Fulfilled(order_id="o1"))
    assert shop.history() == ["CREATED", "VALIDATED", "CANCELLED"]
    assert shop.topology.row(STOCK, "JUMPERS").count == 10


def test_a_cancelled_order_that_is_paid_is_not_confirmed(shop):
    shop.place()
    shop.cancel()
    shop.pay()
    assert shop.emails == ["cancelled"]
    assert shop.refunds == {"p1": ("EUR", 15)}


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


def test_a_fulfilled_order_is_not_cancelled_at_the_payment_deadline():
    """Its SHIPPED may not be read yet: fulfilment alone has no orders service that would ship it."""
    gate = fulfilment_service.app.build(Settings(fulfilment_needs="VALIDATED,CHECKED_IN", payment_deadline_s=600))
    topology = TopologyTestDriver(gate.service)
    for order_id in ("o1", "o2"):
        topology.send(ORDERS, order(order_id, state=OrderState.VALIDATED))
    topology.send(HOME_CHECKINS, checked_in("c1", "o1"))
    assert [f.order_id for f in topology.values(FULFILMENTS)] == ["o1"]
    topology.advance(timedelta(seconds=601))
    assert [c.order_id for c in topology.values(CANCELLATIONS)] == ["o2"]


def test_fulfilled_means_nothing_for_a_cancelled_order():
    """Cancelled between the fulfilment and its reading: the status contradicts neither itself nor the order."""
    gate = fulfilment_service.app.build(Settings())
    topology = TopologyTestDriver(gate.service)
    topology.send(ORDERS, order("o1", state=OrderState.VALIDATED))
    topology.send(PAYMENTS, Payment(id="p1", order_id="o1", ccy="EUR", amount=5))
    topology.send(HOME_CHECKINS, checked_in("c1", "o1"))
    topology.send(ORDERS, order("o1", state=OrderState.CANCELLED, reasons=("changed my mind",)))
    topology.send(ORDERS, order("o1", state=OrderState.SHIPPED))
    progress = topology.row(PROGRESS, "o1")
    assert (progress.state, progress.fulfilled) == (OrderState.CANCELLED, True)
    shown = status("o1", progress, tuple(Need), "EUR")
    assert (shown.state, shown.fulfilled, shown.missing) == (OrderState.CANCELLED, False, (Need.VALIDATED,))
    assert [(r.refund_id, r.amount) for r in topology.values(REFUNDS)] == [("o1", Decimal(5))]


def test_waiting_check_ins_of_an_undecided_order_are_rejected_when_it_is_cancelled():
    shop = opened(required_checks="FRAUD_CHECK,CREDIT_CHECK")
    shop.place()
    shop.check_in("waiting")
    assert shop.topology.values(CHECKIN_REJECTIONS) == []
    shop.cancel()
    shop.check_in("late")
    rejected = {r.event_id: r.reason for r in shop.topology.values(CHECKIN_REJECTIONS)}
    assert rejected == dict.fromkeys(("waiting", "late"), "the order was cancelled")


def test_a_check_in_that_was_accepted_stays_accepted(shop):
    """It reports that somebody was on the spot, which the cancellation does not undo."""
    shop.place()
    shop.check_in("before")
    shop.cancel()
    assert shop.topology.values(CHECKIN_REJECTIONS) == []


def test_without_a_payment_deadline_an_unpaid_order_waits(shop):
    shop.place()
    shop.topology.advance(timedelta(days=30))
    assert shop.outcome().state is OrderState.VALIDATED


STEPS = st.lists(
    st.sampled_from(["place", "cancel", "request", "pay", "pay more", "return", "check in", "pass", "wait", "replay"]),
    max_size=12,
)
ACTIONS = {
    "place": lambda shop: shop.place(),
    "request": lambda shop: shop.topology.send(CANCELLATIONS, Cancellation(order_id="o1", reason="asked for")),
    "pay": lambda shop: shop.pay(),
    "pay more": lambda shop: shop.pay(2, "p2"),
    "return": lambda shop: shop.pay(-1, "p3"),
    "check in": lambda shop: shop.check_in(),
    "pass": lambda shop: shop.topology.send(ORDER_VALIDATIONS, verdict(CREDIT)),
    "fail": lambda shop: shop.topology.send(ORDER_VALIDATIONS, verdict(CREDIT, "FAIL", reason="no credit")),
    "wait": lambda shop: shop.topology.advance(timedelta(seconds=601)),
    "replay": lambda shop: shop.topology.send(ORDERS, *shop.topology.values(ORDERS)),
}
CREDIT = "CREDIT_CHECK"
"""A check without a validator: an order is undecided until a test gives its verdict."""
WAYS = {
    "VALIDATED": ["CREATED", "VALIDATED"],
    "FAILED": ["CREATED", "FAILED"],
    "SHIPPED": ["CREATED", "VALIDATED", "SHIPPED"],
}


@settings(max_examples=300, deadline=None)
@given(STEPS, st.sampled_from(["pass", "fail"]), st.booleans(), st.booleans())
def test_whatever_races_an_order_ends_in_one_outcome(steps, credit, checked, apart):
    """`checked`: the order waits for a verdict that comes as one of the steps, or fails at the deadline."""
    required = {"required_checks": f"FRAUD_CHECK,INVENTORY_CHECK,ORDER_DETAILS_CHECK,{CREDIT}"} if checked else {}
    shop = opened(apart, payment_deadline_s=600, **required)
    answers, paid_at_end = [], Decimal()
    for step in [*steps, "wait", "wait"]:
        if step == "cancel":
            order = shop.cancel()
            answers.append(order.state if order else None)
        else:
            ACTIONS[credit if step == "pass" else step](shop)
        row = shop.topology.row(PROGRESS, "o1")
        paid_at_end = row.sum("EUR") if row else Decimal()
    history = list(dict.fromkeys(shop.history()))
    end = history[-1] if history else None
    if end == "CANCELLED":
        assert history[:-1] in (["CREATED"], ["CREATED", "VALIDATED"])
    else:
        assert history == (WAYS[end] if end else [])
    stock = shop.topology.row(STOCK, "JUMPERS")
    assert (stock.count, stock.reserved) == ((7, 0) if end == "SHIPPED" else (10, 3 if end == "VALIDATED" else 0))
    assert max(Counter(shop.emails).values(), default=0) <= 1
    assert ("cancelled" in shop.emails) == (end == "CANCELLED")
    if "replay" not in steps and end:
        assert shop.history().count(end) == 1
    if OrderState.CANCELLED in answers:
        assert end == "CANCELLED"
    if end == "VALIDATED":  # paid in time, and waits for a check-in
        assert paid_at_end >= 15 or {"pay", "return"} <= {*steps}
    require_refunds(shop, end, paid_at_end)


def require_refunds(shop, end, paid):
    """Requires that a cancelled order is refunded what was paid, each refund once, and no other order anything."""
    refunds = shop.topology.values(REFUNDS)
    assert len({r.refund_id for r in refunds}) == len(refunds)
    if end != "CANCELLED":
        assert refunds == []
        return
    sent = {p.id: p.amount for p in reversed(shop.topology.values(PAYMENTS))}
    assert paid == sum(sent.values())
    late = sum(r.amount for r in refunds if r.refund_id != "o1")
    before = sum(r.amount for r in refunds if r.refund_id == "o1")
    returned = -min(sent.get("p3", Decimal()), Decimal())
    assert paid <= before + late <= paid + returned  # a negative payment after the cancel carries out a refund
    assert all(sent[r.refund_id] == r.amount for r in refunds if r.refund_id != "o1")
