"""What the audit makes of monitoring's totals."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ecosystem.audit.facts import Fact
from ecosystem.audit.judging.history import Observed
from ecosystem.audit.judging.totals import ExpectedTotals
from ecosystem.audit.report import Rules, ViolationKind
from ecosystem.audit.sources import TOPICS, Source
from schemas.api import ProductTotals
from schemas.messages import BuiltInCheck, ProductEvent

RULES = Rules(
    required=frozenset(BuiltInCheck),
    deadline=timedelta(seconds=60),
    grace=timedelta(0),
    exactly_once=True,
    now_ms=0,
    seen=frozenset(TOPICS),
)
NOBODY = Fact(Source.CHANGES, 0, 0, 0, False, b"")


def history(*kinds):
    at = datetime.fromtimestamp(0, UTC)
    return [
        Observed(ProductEvent(event_id=f"e{n}", kind=kind, code="P", name="P", price=1, version=n, at=at), NOBODY)
        for n, kind in enumerate(kinds, start=1)
    ]


def judged(*, rules=RULES, late=False, counted=(3, 2), **totals):
    """Of a product that is withdrawn, and one that is not."""
    sums, counts = ExpectedTotals(), Counter()
    sums.add(history("CREATED", "UPDATED", "WITHDRAWN"), counted[0])
    sums.add(history("CREATED", "UPDATED"), counted[1])
    row = ProductTotals(**totals).to_json()
    facts = [Fact(Source.TOTALS, 0, 0, 0, late, row)] if totals else []
    return [v.kind for v in sums.judge(facts, rules, counts)], counts


RIGHT = {"created": 2, "updated": 2, "withdrawn": 1, "on_offer": 1}


def test_totals_are_the_sum_of_the_changes():
    assert judged(**RIGHT)[0] == []


@pytest.mark.parametrize("name", ["created", "updated", "withdrawn", "on_offer", "gaps"])
@pytest.mark.parametrize("by", [-1, 1])
def test_no_wrong_total_escapes(name, by):
    assert judged(**RIGHT | {name: RIGHT.get(name, 0) + by})[0] == [ViolationKind.TOTALS_DIFFER]


def test_totals_are_held_against_what_is_counted_so_far():
    assert judged(created=2, updated=2, on_offer=2, counted=(2, 2))[0] == []
    assert judged(**RIGHT, counted=(2, 2))[0] == [ViolationKind.TOTALS_DIFFER]
    assert judged()[0] == [ViolationKind.TOTALS_DIFFER]
    assert judged(counted=(0, 0))[0] == []


def test_at_least_once_they_may_be_off_and_that_is_counted():
    found, counts = judged(created=7, rules=replace(RULES, exactly_once=False))
    assert (found, counts["wrong totals"]) == ([], 1)


def test_nothing_is_said_of_what_moves_or_is_not_known():
    found, counts = judged(created=7, late=True)
    assert (found, counts["moving totals"]) == ([], 1)
    assert judged(created=7, rules=replace(RULES, seen=RULES.seen - {Source.TOTALS}))[0] == []
    assert judged(created=7, rules=replace(RULES, from_ms={Source.CHANGES: {0: 1}}))[0] == []
