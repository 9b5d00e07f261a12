from decimal import Decimal

import pytest

from schemas.messages import Order
from tests.samples import order
from validators.details.processors import failure_reason


@pytest.mark.parametrize(
    "content",
    [{}, {"price": 0}, {"quantity": 1_000_000_000}, {"customer_id": 0}, {"product": "a b"}],
    ids=str,
)
def test_a_valid_order_passes(content):
    assert failure_reason(order(**content)) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"quantity": 0}, "quantity must be above 0, is 0"),
        ({"quantity": -1}, "quantity must be above 0, is -1"),
        ({"price": Decimal("-0.01")}, "price must be 0 or more, is -0.01"),
        ({"product": ""}, "product is missing"),
        ({"product": " \t"}, "product is missing"),
        ({"customer_id": -1}, "customerId must name a customer (0 or more), is -1"),
    ],
)
def test_a_failure_names_the_invalid_field(content, reason):
    assert failure_reason(order(**content)) == reason


@pytest.mark.parametrize("price", ["NaN", "Infinity", "-Infinity"])
def test_a_price_that_is_not_finite_fails(price):
    # The model does not let one in from the wire; the rule does not rely on that.
    unchecked = Order.model_construct(**{**order().__dict__, "price": Decimal(price)})
    assert failure_reason(unchecked) == f"price must be 0 or more, is {price}"


def test_all_invalid_fields_are_named_at_once():
    assert failure_reason(order(quantity=0, price=-1, product="", customer_id=-7)).count(";") == 3
