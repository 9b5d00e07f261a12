"""Faults: repeated, late, missing and unreadable messages."""

from datetime import timedelta

import pytest

from schemas.messages import OrderState
from schemas.topics import ORDER_VALIDATIONS, ORDERS, WAREHOUSE_INVENTORY
from tests.samples import FRAUD, verdict
from validators.fraud.state import CUSTOMERS

DEADLINE = timedelta(seconds=60)


def replay_everything(topology):
    """Replays every message as it was written, without headers."""
    for topic in (ORDERS, ORDER_VALIDATIONS, WAREHOUSE_INVENTORY):
        for record in topology.records(topic.name):
            topology.send_raw(topic, record.key, record.value)


@pytest.mark.parametrize("price", [5, 5000])
def test_an_order_posted_repeatedly_takes_effect_once(shop, price):
    shop.stock(JUMPERS=2)
    shop.topology.send(ORDERS, *[shop.order(price=price)] * 3)
    shop.post(shop.order(price=price))
    end = "VALIDATED" if price == 5 else "FAILED"
    assert sorted(shop.history()) == ["CREATED"] * 4 + [end]
    assert shop.reserved("JUMPERS") == (1 if price == 5 else 0)
    assert shop.topology.row(CUSTOMERS, "1").sessions[0].total == price


def test_a_replay_of_every_message_changes_no_decision(shop):
    shop.stock(JUMPERS=3)
    shop.post(shop.order("o1", quantity=2), shop.order("o2", quantity=2), shop.order("o3", quantity=-1))
    before = [shop.outcome(o) for o in ("o1", "o2", "o3")]
    replay_everything(shop.topology)
    again = [shop.outcome(o) for o in ("o1", "o2", "o3")]
    assert [o.model_copy(update={"late": 0}) for o in again] == [o.model_copy(update={"late": 0}) for o in before]
    assert [o.late for o in again] > [o.late for o in before]
    assert shop.reserved("JUMPERS") == 2
    # Each message is there twice, original and replay, and no other.
    assert sorted(shop.history("o1")) == ["CREATED"] * 2 + ["VALIDATED"] * 2
    assert sorted(shop.history("o2")) == ["CREATED"] * 2 + ["FAILED"] * 2


def test_a_failed_order_releases_its_stock_exactly_once(shop):
    shop.stock(JUMPERS=10)
    shop.post(shop.order("o1", quantity=4), shop.order("o2", quantity=4, price=5000))
    assert shop.reserved("JUMPERS") == 4
    failed = shop.order("o2", quantity=4, price=5000, state="FAILED")
    shop.post(failed, failed)
    assert shop.reserved("JUMPERS") == 4


@pytest.mark.parametrize(
    ("missing", "check"),
    [("fraud", "FRAUD_CHECK"), ("inventory", "INVENTORY_CHECK"), ("details", "ORDER_DETAILS_CHECK")],
)
def test_without_a_validator_orders_fail_at_the_deadline_with_the_reason(open_shop, missing, check):
    shop = open_shop(without=(missing,))
    shop.stock(JUMPERS=10)
    shop.post(shop.order())
    shop.topology.advance(DEADLINE - timedelta(seconds=1))
    assert shop.history() == ["CREATED"]
    shop.topology.advance(timedelta(seconds=1))
    assert shop.history() == ["CREATED", "FAILED"]
    assert shop.outcome().reasons == (f"{check}: no verdict within 60 s",)


def test_an_order_that_missed_its_deadline_releases_its_stock(open_shop):
    shop = open_shop(without=("fraud",))
    shop.stock(JUMPERS=10)
    shop.post(shop.order(quantity=7))
    assert shop.reserved("JUMPERS") == 7
    shop.topology.advance(DEADLINE)
    assert shop.reserved("JUMPERS") == 0


def test_the_deadline_is_a_setting(open_shop):
    shop = open_shop(without=("fraud",), validation_deadline_s=5)
    shop.stock(JUMPERS=10)
    shop.post(shop.order())
    shop.topology.advance(timedelta(seconds=5))
    assert shop.history() == ["CREATED", "FAILED"]


def test_a_verdict_after_the_deadline_does_not_revive_the_order(open_shop):
    shop = open_shop(without=("fraud",))
    shop.stock(JUMPERS=10)
    shop.post(shop.order())
    shop.topology.advance(DEADLINE)
    shop.topology.send(ORDER_VALIDATIONS, verdict(FRAUD))
    assert shop.history() == ["CREATED", "FAILED"]
    assert shop.outcome().state is OrderState.FAILED


def test_a_verdict_written_by_another_program_counts(open_shop):
    shop = open_shop(without=("fraud",))
    shop.stock(JUMPERS=10)
    shop.post(shop.order())
    shop.topology.send_raw(
        ORDER_VALIDATIONS,
        b"o1",
        b'{"checkType": "FRAUD_CHECK", "validationResult": "PASS", "orderId": "o1", "by": "kotlin"}',
    )
    assert shop.history() == ["CREATED", "VALIDATED"]


def test_an_unreadable_order_is_dead_lettered_and_does_not_block_the_next(shop):
    shop.stock(JUMPERS=10)
    shop.topology.send_raw(ORDERS, b"o1", b'{"id":"o1","quantity":"many"}')
    shop.post(shop.order("o1"))
    assert shop.outcome("o1").state is OrderState.VALIDATED
    assert {record.value for record in shop.topology.records("orders.dead-letters")} == {
        b'{"id":"o1","quantity":"many"}'
    }
