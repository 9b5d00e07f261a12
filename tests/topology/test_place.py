"""Placing orders: a command in the loop, compared with the existing order of its id."""

from functools import partial

from orders_service.commands import place
from orders_service.state import ORDERS_VIEW
from schemas.messages import OrderState
from schemas.topics import ORDERS


def placed(shop, order, **how):
    return shop.topology.call(ORDERS_VIEW, order.id, partial(place, order, **how))


def test_a_placed_order_is_validated(shop):
    shop.stock(JUMPERS=10)
    assert placed(shop, shop.order("o1", product="JUMPERS", quantity=3)) is None

    assert shop.outcome("o1").state is OrderState.VALIDATED
    assert shop.history("o1") == ["CREATED", "VALIDATED"]
    assert shop.reserved("JUMPERS") == 3


def test_placing_an_order_again_returns_its_current_state_and_writes_nothing(shop):
    shop.stock(JUMPERS=10)
    order = shop.order("o1", product="JUMPERS", quantity=3)
    placed(shop, order)
    written = len(shop.topology.records(ORDERS.name))

    assert placed(shop, order).state is OrderState.VALIDATED
    assert len(shop.topology.records(ORDERS.name)) == written


def test_another_order_under_the_same_id_reserves_nothing(shop):
    shop.stock(JUMPERS=10, SOCKS=10)
    placed(shop, shop.order("o1", product="JUMPERS", quantity=3))
    known = placed(shop, shop.order("o1", product="SOCKS", quantity=5))

    assert known.product == "JUMPERS"
    assert (shop.reserved("JUMPERS"), shop.reserved("SOCKS")) == (3, 0)
