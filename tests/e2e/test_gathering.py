"""The orders service alone: it aggregates verdicts and publishes the outcome."""

import pytest

from orders_service.state import ORDERS_VIEW
from runtime.errors import KeyNotOwned
from schemas.messages import BuiltInCheck, OrderValidation, ValidationResult
from schemas.topics import ORDER_VALIDATIONS, ORDERS
from tests.workers import Deployment, until

ORDER = {"customerId": 1, "product": "JUMPERS", "quantity": 1, "price": 1}
FRAUD, INVENTORY, DETAILS = BuiltInCheck.FRAUD_CHECK, BuiltInCheck.INVENTORY_CHECK, BuiltInCheck.ORDER_DETAILS_CHECK
PASS, FAIL = ValidationResult.PASS, ValidationResult.FAIL


def verdict(order_id, check, result=PASS, reason=None):
    return OrderValidation(order_id=order_id, check_type=check, validation_result=result, reason=reason)


@pytest.mark.parametrize("workers", [1, 2])
async def test_three_passes_validate_an_order_and_one_fail_fails_it(deployment: Deployment, workers):
    first, *_, last = 2 * await deployment.start_core(apart=True, orders=workers, only=("orders",))
    for order_id in ("good", "bad"):
        await deployment.post(first, **ORDER, id=order_id)

    await deployment.send(
        ORDER_VALIDATIONS,
        *[verdict("good", check) for check in (FRAUD, INVENTORY, DETAILS)],
        verdict("bad", FRAUD),
        verdict("bad", INVENTORY, FAIL, "all gone"),
    )

    good, bad = [await deployment.outcome(last, order_id) for order_id in ("good", "bad")]
    assert (good["state"], good["reasons"]) == ("VALIDATED", [])
    assert (bad["state"], bad["reasons"]) == ("FAILED", ["INVENTORY_CHECK: all gone"])
    assert sorted([(o.id, o.state) for o in await deployment.values(ORDERS)]) == [
        ("bad", "CREATED"),
        ("bad", "FAILED"),
        ("good", "CREATED"),
        ("good", "VALIDATED"),
    ]


async def test_a_duplicate_verdict_does_not_replace_a_missing_one(deployment: Deployment):
    (worker,) = await deployment.start_core(apart=True, only=("orders",))
    await deployment.post(worker, **ORDER, id="open")

    await deployment.send(ORDER_VALIDATIONS, *[verdict("open", check) for check in (FRAUD, DETAILS, DETAILS, FRAUD)])
    await until(lambda: (row := view(worker, "open")) and row.late == 2, "repeated verdicts seen")
    status, problem = await deployment.get(worker, "open", "validated", timeout=0)

    assert (status, problem["state"]) == (504, "CREATED")
    assert [v["checkType"] for v in problem["verdicts"]] == [FRAUD, DETAILS]
    assert [o.state for o in await deployment.values(ORDERS)] == ["CREATED"]


async def test_verdicts_may_arrive_before_their_order(deployment: Deployment):
    (worker,) = await deployment.start_core(apart=True, only=("orders",))
    await deployment.send(ORDER_VALIDATIONS, *[verdict("early", check) for check in (DETAILS, INVENTORY, FRAUD)])
    await until(lambda: (row := view(worker, "early")) and len(row.verdicts) == 3, "verdicts seen")
    assert (await deployment.get(worker, "early", timeout=0))[0] == 404

    await deployment.post(worker, **ORDER, id="early")

    assert (await deployment.outcome(worker, "early"))["state"] == "VALIDATED"


async def test_an_order_without_all_verdicts_by_the_deadline_fails_for_good(deployment: Deployment, apart):
    present = ("orders", "inventory", "details")
    (worker,) = await deployment.start_core(apart=apart, only=present, validation_deadline_s=2)
    await deployment.stock(JUMPERS=10)
    await deployment.post(worker, **ORDER, id="late")

    outcome = await deployment.outcome(worker, "late")

    assert outcome["state"] == "FAILED"
    assert "FRAUD_CHECK: no verdict within 2 s" in outcome["reasons"]

    # The fraud check's for certain; on a slow machine also others that were missing.
    late = len(BuiltInCheck) - len(outcome["verdicts"])
    await deployment.start("fraud", name="fraud")
    await until(lambda: (row := view(worker, "late")) and row.late == late, "late verdicts counted")

    assert await deployment.outcome(worker, "late") == {**outcome, "late": late}
    assert [o.state for o in await deployment.values(ORDERS)] == ["CREATED", "FAILED"]
    assert [v.check_type for v in await deployment.values(ORDER_VALIDATIONS)].count(FRAUD) == 1


def view(worker, order_id):
    """The row of an order; `None` also during a rebalance."""
    try:
        return worker.read(ORDERS_VIEW, order_id)
    except KeyNotOwned:
        return None
