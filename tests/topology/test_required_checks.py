"""The required checks change while the core runs, composed and apart."""

from datetime import timedelta

import pytest

from runtime.model.records import Write
from schemas.messages import BuiltInCheck, CheckSet, OrderValidation, RequiredChecks, ValidationResult
from schemas.topics import ORDER_VALIDATIONS, REQUIRED_CHECKS

CREDIT = "CREDIT_CHECK"
BUILT_IN = tuple(check.value for check in BuiltInCheck)
IDS = [f"o{n}" for n in range(12)]
"""Ids in all partitions."""


def require(shop, *checks, version):
    """Writes a set to every partition, as `orders checks` does."""
    topology = shop.topology
    record = RequiredChecks(version=version, sets=(CheckSet(since=topology.now, checks=checks),))
    for partition in range(topology.partitions):
        key = REQUIRED_CHECKS.key(record).encode()
        topology.write(Write(REQUIRED_CHECKS.name, partition, key, record.to_json()))
    topology.run()
    topology.advance(timedelta(0))


def place(shop, *ids):
    shop.stock(JUMPERS=1000)
    shop.post(*[shop.order(id_) for id_ in ids])


def states(shop):
    return {shop.history(id_)[-1] for id_ in IDS}


@pytest.mark.parametrize("result", ["PASS", "FAIL"])
def test_orders_wait_for_an_added_check(shop, result):
    require(shop, *BUILT_IN, CREDIT, version=1)
    place(shop, *IDS)
    assert states(shop) == {"CREATED"}
    for id_ in IDS:
        verdict = OrderValidation(order_id=id_, check_type=CREDIT, validation_result=ValidationResult(result))
        shop.topology.send(ORDER_VALIDATIONS, verdict)
    assert states(shop) == {"VALIDATED" if result == "PASS" else "FAILED"}
    assert {shop.outcome(id_).required for id_ in IDS} == {(*BUILT_IN, CREDIT)}


def test_a_removal_decides_the_waiting_orders_of_every_partition(shop):
    require(shop, *BUILT_IN, CREDIT, version=1)
    place(shop, *IDS)
    require(shop, *BUILT_IN, version=2)
    assert states(shop) == {"VALIDATED"}
    assert {shop.outcome(id_).required for id_ in IDS} == {BUILT_IN}


def test_a_check_that_was_removed_fails_no_order(open_shop):
    shop = open_shop(without=("fraud",))
    place(shop, *IDS)
    assert states(shop) == {"CREATED"}
    require(shop, "INVENTORY_CHECK", "ORDER_DETAILS_CHECK", version=1)
    assert states(shop) == {"VALIDATED"}
    shop.topology.advance(timedelta(hours=1))
    assert states(shop) == {"VALIDATED"}
