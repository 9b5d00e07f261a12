"""Scenarios of the reference implementation: what clients of the core can rely on."""

import pytest

from schemas.messages import OrderState
from schemas.topics import ORDERS
from tests.samples import DETAILS, FRAUD, INVENTORY


def test_an_order_that_passes_all_checks_is_validated(shop):
    shop.stock(JUMPERS=10)
    shop.post(shop.order())
    assert shop.history() == ["CREATED", "VALIDATED"]
    outcome = shop.outcome()
    assert outcome.state is OrderState.VALIDATED
    assert {v.check_type: str(v.validation_result) for v in outcome.verdicts} == {
        FRAUD: "PASS",
        INVENTORY: "PASS",
        DETAILS: "PASS",
    }
    assert outcome.reasons == ()


def test_ten_orders_in_a_row_are_validated(shop):
    shop.stock(JUMPERS=10)
    for n in range(10):
        shop.post(shop.order(f"o{n}"))
        assert shop.history(f"o{n}") == ["CREATED", "VALIDATED"]
    assert shop.reserved("JUMPERS") == 10


def test_ten_orders_in_a_row_fail_for_lack_of_stock(shop):
    for n in range(10):
        shop.post(shop.order(f"o{n}"))
        assert shop.history(f"o{n}") == ["CREATED", "FAILED"]
        assert shop.outcome(f"o{n}").reasons == ("INVENTORY_CHECK: no stock of 'JUMPERS' was announced",)


def test_ten_orders_posted_at_once_are_each_decided_once(shop):
    shop.stock(JUMPERS=5)
    shop.topology.send(ORDERS, *[shop.order(f"o{n}") for n in range(10)])
    ends = [shop.history(f"o{n}")[1:] for n in range(10)]
    assert sorted(ends) == [["FAILED"]] * 5 + [["VALIDATED"]] * 5
    assert shop.reserved("JUMPERS") == 5


def test_two_orders_make_four_records(shop):
    shop.stock(JUMPERS=1)
    shop.post(shop.order("o1"), shop.order("o2"))
    assert len(shop.topology.records("orders")) == 4
    assert shop.history("o1") == ["CREATED", "VALIDATED"]
    assert shop.history("o2") == ["CREATED", "FAILED"]


def test_orders_of_customers_who_spend_too_much_in_one_session_fail(shop):
    shop.stock(JUMPERS=1000)
    table = [
        # customer, quantity, price, verdict
        (0, 3, 5, "PASS"),
        (0, 1, 75, "PASS"),
        (1, 1, 75, "PASS"),
        (1, 1, 75, "PASS"),
        (1, 50, 75, "FAIL"),
        (2, 10, 100, "PASS"),
        (2, 10, 100, "FAIL"),
        (2, 1, 5, "FAIL"),
    ]
    for n, (customer, quantity, price, _) in enumerate(table):
        shop.post(shop.order(f"o{n}", customer_id=customer, quantity=quantity, price=price))
    assert shop.verdicts_of(FRAUD) == {f"o{n}": result for n, (*_, result) in enumerate(table)}


def test_stock_is_reserved_first_come_first_served(shop):
    shop.stock(UNDERPANTS=75, JUMPERS=1)
    shop.post(
        shop.order("o1", product="UNDERPANTS", quantity=3),
        shop.order("o2", product="JUMPERS"),
        shop.order("o3", product="JUMPERS"),
    )
    assert shop.verdicts_of(INVENTORY) == {"o1": "PASS", "o2": "PASS", "o3": "FAIL"}
    assert (shop.reserved("UNDERPANTS"), shop.reserved("JUMPERS")) == (3, 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"quantity": -1}, "quantity must be above 0, is -1"),
        ({"price": -1.5}, "price must be 0 or more, is -1.5"),
    ],
)
def test_an_order_with_invalid_fields_fails_and_leaves_stock_and_session_unchanged(shop, content, reason):
    shop.stock(JUMPERS=10)
    shop.post(shop.order(**content))
    assert shop.verdicts_of(DETAILS) == {"o1": "FAIL"}
    assert shop.history() == ["CREATED", "FAILED"]
    assert any(reason in given for given in shop.outcome().reasons)
    assert shop.reserved("JUMPERS") == 0
    shop.post(shop.order("o2", price=1999))
    assert shop.history("o2") == ["CREATED", "VALIDATED"]


def test_stock_of_a_failed_order_is_available_to_the_next(shop):
    shop.stock(JUMPERS=3)
    shop.post(shop.order("o1", quantity=3, price=1000))
    assert shop.outcome("o1").state is OrderState.FAILED
    assert shop.reserved("JUMPERS") == 0
    shop.post(shop.order("o2", customer_id=2, quantity=3))
    assert shop.history("o2") == ["CREATED", "VALIDATED"]


def test_no_order_and_no_verdict_becomes_a_dead_letter(shop):
    shop.stock(JUMPERS=1)
    shop.post(shop.order("o1"), shop.order("o2", quantity=0, price=-1))
    assert not [tp for tp in shop.topology.topics if tp.topic.endswith(".dead-letters")]
