"""`validator(...)`: the parts that the three validators do not use, and its errors."""

import pytest

from runtime.testing import TopologyTestDriver
from runtime.validator import VerdictRow, validator
from schemas.topics import ORDER_VALIDATIONS, ORDERS
from tests.samples import order


def said(driver):
    return [(str(v.validation_result), v.reason) for v in driver.values(ORDER_VALIDATIONS)]


def test_without_a_key_orders_are_judged_where_they_are_and_not_repartitioned():
    changes = []
    definition = validator(
        "value",
        "VALUE_CHECK",
        judge=lambda order, ctx: "too much" if order.price > 5 else None,
        on_change=lambda order, ctx: changes.append(str(order.state)),
    )
    driver = TopologyTestDriver(definition.service)
    driver.send(ORDERS, order(), order("o2", price=6), order("o2", price=6))
    driver.send(ORDERS, *[order(state=state) for state in ("VALIDATED", "FAILED", "SHIPPED", "CANCELLED")])
    assert {tp.topic for tp in driver.topics} == {"orders", "order-validations"}
    assert sorted(said(driver), key=str) == [("FAIL", "too much"), ("FAIL", "too much"), ("PASS", None)]
    assert changes == ["FAILED", "SHIPPED", "CANCELLED"]


def test_a_replayed_order_is_judged_once_even_if_it_passed_or_its_row_is_from_the_rule():
    judged = []

    def judge(order, ctx):
        judged.append(order.id)
        return None if order.id == "o1" else VerdictRow(refusal="no")

    driver = TopologyTestDriver(
        validator("value", "VALUE_CHECK", judge=judge, by=("product", lambda o: o.product)).service
    )
    driver.send(ORDERS, order("o1"), order("o2"), order("o1"), order("o2"))
    assert judged == ["o1", "o2"]
    assert sorted(said(driver), key=str) == [("FAIL", "no")] * 2 + [("PASS", None)] * 2


def test_a_precheck_fails_an_order_before_it_is_repartitioned():
    definition = validator(
        "value",
        "VALUE_CHECK",
        judge=lambda order, ctx: pytest.fail("judged"),
        precheck=lambda order: "never",
        by=("product", lambda o: o.product),
    )
    driver = TopologyTestDriver(definition.service)
    driver.send(ORDERS, order(), order(state="FAILED"))
    assert said(driver) == [("FAIL", "never")]
    assert not driver.records("value-orders-by-product")


@pytest.mark.parametrize("check", ["", "credit", "1_CHECK", "CREDIT-CHECK", "A" * 65])
def test_the_error_of_a_malformed_check_names_it_and_the_form(check):
    with pytest.raises(ValueError, match="must begin with A to Z") as error:
        validator("credit", check, judge=lambda order, ctx: None)
    assert repr(check) in str(error.value)
