"""What the audit makes of the checks that an order was decided by."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ecosystem.audit.facts import Fact
from ecosystem.audit.judging import required, reservations, verdicts
from ecosystem.audit.judging.history import build_history
from ecosystem.audit.report import SKEW_MS, ViolationKind
from ecosystem.audit.sources import Source
from orders_service.state import OrderView
from schemas.api import Verdict
from schemas.messages import MAX_CHECK_SETS, CheckSet, OrderState, ValidationResult
from tests.samples import DETAILS, FRAUD, INVENTORY, order, verdict
from tests.unit.test_audit import NOW_MS, RULES

CREDIT = "CREDIT_CHECK"
INITIAL = (FRAUD, INVENTORY, DETAILS)
POSTED_S, DECIDED_S = 7200, 7190
"""Seconds before the audit."""
GRACE_S = RULES.grace.total_seconds() + SKEW_MS / 1000


def decided(checks, *passed, state="VALIDATED", reasons=(), failed=()):
    """The history of an order that was decided by these checks."""
    given = [(check, "PASS") for check in passed] + [(check, "FAIL") for check in failed]
    heard = tuple(Verdict(check_type=c, validation_result=ValidationResult(result)) for c, result in given)
    final = order(state=OrderState(state))
    row = OrderView(order=final, verdicts=heard, reasons=reasons, required=checks)
    facts = [
        (Source.ORDERS, order(), POSTED_S),
        (Source.ORDERS, final, DECIDED_S),
        *((Source.VERDICTS, verdict(check, result), DECIDED_S) for check, result in given),
        (Source.VIEW, row, DECIDED_S),
    ]
    return build_history(
        "o1", [Fact(s, 0, n, NOW_MS - ago_s * 1000, False, m.to_json()) for n, (s, m, ago_s) in enumerate(facts)]
    )


def sets(*starts):
    """Rules with these sets, each with its start in seconds before the audit."""
    return replace(
        RULES,
        sets=tuple(CheckSet(since=datetime.fromtimestamp(NOW_MS / 1000 - ago, UTC), checks=c) for ago, c in starts),
    )


def kinds(history, rules):
    counts = Counter()
    found = [
        *verdicts.judge(history, rules, counts),
        *required.judge(history, rules),
        *reservations.judge(history, rules, counts, lambda *_: None),
    ]
    return [v.kind for v in found]


WITH_CREDIT = (*INITIAL, CREDIT)
DIFFERS = [ViolationKind.CHECKS_DIFFER]


@pytest.mark.parametrize(
    ("checks", "rules", "found"),
    [
        (None, RULES, []),  # a row of an earlier version
        (INITIAL, RULES, []),
        ((FRAUD,), RULES, DIFFERS),
        (WITH_CREDIT, RULES, DIFFERS),
        ((), RULES, DIFFERS),
        # A set that began before the post, while the order waited, after its decision.
        (WITH_CREDIT, sets((9000, WITH_CREDIT)), []),
        (INITIAL, sets((9000, WITH_CREDIT)), DIFFERS),
        (WITH_CREDIT, sets((7195, WITH_CREDIT)), []),
        (INITIAL, sets((7195, WITH_CREDIT)), []),
        (WITH_CREDIT, sets((7100, WITH_CREDIT)), DIFFERS),
        (INITIAL, sets((7100, WITH_CREDIT)), []),
        # A worker may read a change late.
        (INITIAL, sets((POSTED_S + GRACE_S, WITH_CREDIT)), []),
        (INITIAL, sets((POSTED_S + GRACE_S + 1, WITH_CREDIT)), DIFFERS),
        # Removed while the order waited.
        (INITIAL, sets((9000, WITH_CREDIT), (7195, INITIAL)), []),
        (WITH_CREDIT, sets((9000, WITH_CREDIT), (7195, INITIAL)), []),
        ((FRAUD,), sets((9000, (FRAUD, CREDIT)), (7195, (FRAUD, INVENTORY))), []),
        ((INVENTORY,), sets((9000, (FRAUD, INVENTORY)), (7195, (INVENTORY, CREDIT))), []),
        ((FRAUD, CREDIT), sets((9000, (FRAUD, INVENTORY)), (7195, (INVENTORY, CREDIT))), DIFFERS),
        ((), sets((7195, ())), []),
        # The set of that time may have gone from the record.
        ((FRAUD,), sets(*[(7000 - n, (f"CHECK_{n}",)) for n in range(MAX_CHECK_SETS)]), []),
    ],
)
def test_an_order_is_decided_by_a_set_that_was_in_force(checks, rules, found):
    history = decided(checks, *WITH_CREDIT)
    assert [v.kind for v in required.judge(history, rules)] == found


@pytest.mark.parametrize(
    ("history", "found"),
    [
        (decided(WITH_CREDIT, *WITH_CREDIT), []),
        (decided(WITH_CREDIT, *INITIAL), [ViolationKind.VALIDATED_WITHOUT]),
        (decided(WITH_CREDIT, *INITIAL, state="FAILED", failed=[CREDIT]), []),
        (decided(INITIAL, *INITIAL, failed=[CREDIT]), []),
        (decided(INITIAL, *INITIAL, state="FAILED", failed=[CREDIT]), [ViolationKind.FAILED_WITHOUT_REASON]),
        (
            decided(WITH_CREDIT, *INITIAL, state="FAILED", reasons=("CREDIT_CHECK: no verdict within 5 s",)),
            [],
        ),
        (
            decided(WITH_CREDIT, *INITIAL, state="FAILED", reasons=("FRAUD_CHECK: no verdict within 5 s",)),
            [ViolationKind.FAILED_WITHOUT_REASON],
        ),
        (
            decided(WITH_CREDIT, *INITIAL, state="FAILED", reasons=("CREDIT_CHECK: no verdict within 50 s",)),
            [ViolationKind.FAILED_WITHOUT_REASON],
        ),
    ],
)
def test_verdicts_are_judged_by_the_checks_of_the_order(history, found):
    rules = replace(sets((7201, WITH_CREDIT)), seen=frozenset({Source.ORDERS, Source.VERDICTS, Source.VIEW}))
    assert kinds(history, rules) == found


def test_a_validated_order_need_not_hold_pieces_if_inventory_was_not_required():
    rules = sets((7201, (FRAUD,)))
    assert kinds(decided((FRAUD,), FRAUD), rules) == []
    assert kinds(decided(INITIAL, *INITIAL), rules) == [ViolationKind.VALIDATED_HOLDS_NOTHING]
