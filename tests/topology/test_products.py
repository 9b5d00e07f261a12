"""Orders for products that are on offer, withdrawn or unknown."""

import pytest

from schemas.messages import OrderState, ProductEvent, ProductEventKind
from schemas.topics import ORDER_VALIDATIONS, ORDERS, PRODUCTS
from tests.samples import DETAILS, INVENTORY

CREATED, UPDATED, WITHDRAWN = ProductEventKind


def event(kind, version, code="JUMPERS"):
    id_ = f"0190c2a4-9d6e-7c11-8a53-{version:012}"
    at = "2026-01-01T12:00:00Z"
    return ProductEvent(event_id=id_, kind=kind, code=code, name="Jumpers", price=5, version=version, at=at)


@pytest.fixture
def shop(open_shop):
    """Knows jumpers and socks; they and an unknown product are in stock."""
    shop = open_shop(unknown_products="fail")
    shop.stock(JUMPERS=100, SOCKS=100, LEFTOVERS=100)
    shop.topology.send(PRODUCTS, event(CREATED, 1), event(CREATED, 1, "SOCKS"))
    return shop


def reasons(shop, **order):
    number = len(shop.topology.values(ORDERS))
    shop.post(shop.order(f"o{number}", customer_id=number, **order))
    outcome = shop.outcome(f"o{number}")
    assert (outcome.state is OrderState.FAILED) == bool(outcome.reasons)
    return outcome.reasons


def test_a_product_on_offer_can_be_ordered(shop):
    assert reasons(shop) == ()


def test_a_withdrawn_product_cannot_be_ordered_until_it_is_updated(shop):
    shop.topology.send(PRODUCTS, event(WITHDRAWN, 2))
    said = reasons(shop)
    assert said
    assert set(said) <= {
        "INVENTORY_CHECK: 'JUMPERS' was withdrawn",
        "ORDER_DETAILS_CHECK: product 'JUMPERS' was withdrawn",
    }
    assert reasons(shop, product="SOCKS") == ()
    assert shop.reserved("JUMPERS") == 0
    shop.topology.send(PRODUCTS, event(UPDATED, 3))
    assert reasons(shop) == ()


def test_inventory_and_details_both_fail_an_order_for_a_withdrawn_product(shop):
    shop.topology.send(PRODUCTS, event(WITHDRAWN, 2))
    reasons(shop)
    found = {v.check_type: v.reason for v in shop.topology.values(ORDER_VALIDATIONS) if v.reason}
    assert found == {INVENTORY: "'JUMPERS' was withdrawn", DETAILS: "product 'JUMPERS' was withdrawn"}


def test_an_unknown_product_cannot_be_ordered_even_if_it_is_in_stock(shop):
    assert reasons(shop, product="LEFTOVERS") == ("ORDER_DETAILS_CHECK: there is no product 'LEFTOVERS'",)


def test_an_unknown_product_can_be_ordered_with_unknown_products_pass(open_shop):
    shop = open_shop(unknown_products="pass")
    shop.stock(JUMPERS=1)
    assert reasons(shop) == ()


@pytest.mark.parametrize(
    "late",
    [
        [(CREATED, 1)],
        [(UPDATED, 2), (CREATED, 1)],
        [(WITHDRAWN, 3)],
    ],
)
def test_repeated_and_outdated_product_events_change_nothing(shop, late):
    shop.topology.send(PRODUCTS, event(UPDATED, 2), event(WITHDRAWN, 3))
    shop.topology.send(PRODUCTS, *(event(kind, version) for kind, version in late))
    assert any("withdrawn" in reason for reason in reasons(shop))


@pytest.mark.parametrize("before", [CREATED, WITHDRAWN])
def test_a_replayed_order_gets_its_first_verdicts(shop, before):
    if before is WITHDRAWN:
        shop.topology.send(PRODUCTS, event(WITHDRAWN, 2))
    order = shop.order()
    shop.post(order)
    decided = shop.outcome()
    shop.topology.send(PRODUCTS, event(UPDATED, 3) if before is WITHDRAWN else event(WITHDRAWN, 2))
    shop.post(order)

    assert shop.outcome().reasons == decided.reasons
    said = [(v.check_type, v.validation_result) for v in shop.topology.values(ORDER_VALIDATIONS)]
    assert len(said) == 6
    assert len(set(said)) == 3


def test_an_order_with_invalid_fields_fails_for_them_whatever_the_product(shop):
    shop.post(shop.order("o1", product="LEFTOVERS", quantity=0), shop.order("o2", product=" "))
    found = {v.order_id: v.reason for v in shop.topology.values(ORDER_VALIDATIONS) if v.check_type == DETAILS}
    assert found == {"o1": "quantity must be above 0, is 0", "o2": "product is missing"}
