"""Promise: an order is decided by the checks that were required when it was first seen, without those removed since."""

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise

from ecosystem.audit.judging.history import OrderHistory, facts_of
from ecosystem.audit.report import SKEW_MS, Rules, Violation, ViolationKind
from schemas.messages import MAX_CHECK_SETS, CheckType

_Checks = frozenset[CheckType]


def required_of(order: OrderHistory, rules: Rules) -> _Checks:
    """Returns the checks that decide an order: those of its row; rows of earlier versions do not have them."""
    view = order.view
    if view is None or view.order is None or view.required is None:
        return rules.required
    return frozenset(view.required)


def judge(order: OrderHistory, rules: Rules) -> Iterator[Violation]:
    """Judges whether the checks of the order were in force between its post and its decision."""
    view = order.view
    if order.posted is None or order.moving or view is None or view.order is None or view.required is None:
        return
    posted_ms = order.posted.fact.time_ms
    if len(rules.sets) >= MAX_CHECK_SETS and posted_ms < _ms(rules.sets[0].since) + SKEW_MS:
        return  # what was in force then is no longer known
    decided = order.final or order.rows[-1]
    if not _was_in_force(required_of(order, rules), posted_ms, decided.fact.time_ms, rules):
        names = ", ".join(sorted(view.required)) or "no check"
        text = f"judged by {names}, which was not in force between its post and its decision"
        yield Violation(
            ViolationKind.CHECKS_DIFFER, order.id, text, facts_of(order.posts[:1], order.finals, order.rows[-1:])
        )


def _was_in_force(checks: _Checks, posted_ms: int, decided_ms: int, rules: Rules) -> bool:
    """Whether these are the checks of one set, without some that are not in a later one.

    The order is first seen after its post. Its worker may read a change late, by the grace at most.
    """
    started = [(_ms(s.since), frozenset(s.checks)) for s in rules.sets if _ms(s.since) <= decided_ms + SKEW_MS]
    sets = [(0, rules.required), *started]
    slack_ms = SKEW_MS + int(rules.grace.total_seconds() * 1000)
    ends = [later for (_, _), (later, _) in pairwise(sets)] + [decided_ms]
    for n, ((_, first), end_ms) in enumerate(zip(sets, ends, strict=True)):
        later = [checks_then for _, checks_then in sets[n + 1 :]]
        removed = {check for check in first if any(check not in checks_then for checks_then in later)}
        if checks <= first and first - checks <= removed and end_ms + slack_ms >= posted_ms:
            return True
    return False


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
