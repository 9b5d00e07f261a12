"""Fulfilment: what has to happen before an order is shipped, in whatever order it happens."""

import json
from datetime import timedelta
from decimal import Decimal
from itertools import permutations

import pytest
from samples import checked_in

import fulfilment_service.app
from fulfilment_service.state import PROGRESS
from runtime.settings import Settings
from runtime.testing import Topology
from schemas.api import FulfilmentStatus
from schemas.messages import OrderState, Payment
from schemas.topics import CHECKIN_REJECTIONS, FULFILMENTS, HOME_CHECKINS, ORDERS, PAYMENTS
from tests.topology.conftest import CORE, Shop
from validators.inventory.state import RESERVATIONS, STOCK


def paid(amount, id_="p1", order_id="o1") -> Payment:
    return Payment(id=id_, order_id=order_id, ccy="EUR", amount=amount)


@pytest.fixture(params=[False, True], ids=["composed", "apart"])
def open_shop(request):
    def opened(**settings) -> Shop:
        apps = [*CORE.values(), fulfilment_service.app]
        services = [app.build(Settings(**settings)).service for app in apps]
        return Shop(Topology(*services, apart=request.param))

    return opened


@pytest.fixture
def shop(open_shop):
    shop = open_shop()
    shop.stock(JUMPERS=10)
    return shop


def happen(shop, *events):
    actions = {
        "order": lambda: shop.post(shop.order("o1", product="JUMPERS", quantity=3, price=5)),
        "payment": lambda: shop.topology.send(PAYMENTS, paid(15)),
        "check-in": lambda: shop.topology.send(HOME_CHECKINS, checked_in()),
    }
    for event in events:
        actions[event]()


def rejected(shop) -> dict[str, str]:
    return {r.event_id: r.reason for r in shop.topology.values(CHECKIN_REJECTIONS)}


@pytest.mark.parametrize("sequence", list(permutations(["order", "payment", "check-in"])), ids="-".join)
def test_an_order_is_shipped_once_all_has_happened_in_whatever_order(shop, sequence):
    happen(shop, *sequence)

    assert shop.history("o1") == ["CREATED", "VALIDATED", "SHIPPED"]
    assert shop.outcome("o1").state is OrderState.SHIPPED
    assert rejected(shop) == {}


@pytest.mark.parametrize("left_out", ["payment", "check-in"])
def test_an_order_is_not_shipped_as_long_as_anything_is_missing(shop, left_out):
    happen(shop, *({"order", "payment", "check-in"} - {left_out}))

    assert shop.history("o1") == ["CREATED", "VALIDATED"]


def test_what_is_needed_is_a_setting(open_shop):
    shop = open_shop(fulfilment_needs="VALIDATED")
    shop.stock(JUMPERS=10)
    happen(shop, "order")

    assert shop.outcome("o1").state is OrderState.SHIPPED


def test_payments_are_summed_and_each_counts_once(shop):
    happen(shop, "order", "check-in")
    for payment in (paid(10), paid(10), paid(4, "p2")):
        shop.topology.send(PAYMENTS, payment)
    assert shop.outcome("o1").state is OrderState.VALIDATED

    shop.topology.send(PAYMENTS, paid(1, "p3"))
    assert shop.outcome("o1").state is OrderState.SHIPPED


def test_what_is_repeated_ships_once(shop):
    for _ in range(2):
        happen(shop, "order", "payment", "check-in")

    assert shop.history("o1").count("SHIPPED") == 1
    assert len(shop.topology.values(FULFILMENTS)) == 1


def test_the_pieces_of_a_shipped_order_are_neither_in_stock_nor_reserved(shop):
    happen(shop, "order", "payment", "check-in")
    stock = shop.topology.row(STOCK, "JUMPERS")

    assert (stock.count, stock.reserved) == (7, 0)
    assert shop.topology.row(RESERVATIONS.rows, "o1").held == 0


@pytest.mark.parametrize("first", ["order", "check-in"])
def test_a_check_in_of_an_order_that_failed_is_rejected(shop, first):
    failing = shop.order("o1", product="JUMPERS", quantity=-1)
    steps = [lambda: shop.post(failing), lambda: happen(shop, "check-in")]
    for step in steps if first == "order" else reversed(steps):
        step()

    assert rejected(shop) == {"c1": "the order has failed"}


def test_a_check_in_of_an_order_nobody_knows_is_rejected_after_a_while_and_forgotten(shop):
    happen(shop, "check-in")
    assert rejected(shop) == {}
    shop.topology.advance(timedelta(seconds=60))

    assert rejected(shop) == {"c1": "there is no such order"}
    assert shop.topology.row(PROGRESS, "o1") is None


def test_a_payment_that_comes_before_its_order_is_kept(shop):
    happen(shop, "payment", "check-in")
    shop.topology.advance(timedelta(seconds=60))
    happen(shop, "order")

    assert shop.history("o1") == ["CREATED", "VALIDATED"]
    shop.topology.send(HOME_CHECKINS, checked_in("c2"))
    assert shop.outcome("o1").state is OrderState.SHIPPED


def test_a_need_that_is_none_is_refused():
    with pytest.raises(ValueError, match="LUCK"):
        fulfilment_service.app.build(Settings(fulfilment_needs="VALIDATED,LUCK"))


def test_an_order_may_be_worth_more_than_an_amount_has_digits(shop):
    shop.post(shop.order("o1", product="JUMPERS", quantity=1_000_000_000, price="99999999999.9999"))
    shop.topology.send(PAYMENTS, *[paid("99999999999.9999", id_=f"p{n}") for n in range(3)])
    progress = shop.topology.row(PROGRESS, "o1")

    assert progress.value == Decimal(99999999999999900000)
    status = FulfilmentStatus(
        order_id="o1", fulfilled=False, needed=(), missing=(), value=progress.value, paid=progress.sum("EUR")
    )
    assert json.loads(status.to_json())["paid"] == pytest.approx(3e11)
    assert shop.topology.records(ORDERS.dead_letters) == []
