"""The promise about verdicts: what was decided follows from the first verdict of each required check."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import NamedTuple

from ecosystem.audit.facts import Source
from ecosystem.audit.judging.history import History, Observed, facts_of
from ecosystem.audit.report import SKEW_MS, Kind, Rules, Violation
from runtime.state.ttl_table import TTL
from schemas.messages import CheckType, OrderState, OrderValidation, ValidationResult

_MISSING = re.compile(r"(\w+): no verdict within ([\d.e+]+) s")
"""The reason an order fails for when its time is up (`orders_service.aggregate`)."""


class _Heard(NamedTuple):
    """The verdicts that counted. `sure`: the view names them, or none can have been removed from the topic."""

    results: Mapping[CheckType, ValidationResult]
    sure: bool


def judge(order: History, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Whether the verdicts agree among each other, and with what was decided."""
    yield from _contradictions(order)
    if order.posted is None or order.moving:
        return
    heard = _heard(order, rules)
    counts["late verdicts"] += max(0, len(order.verdicts) - len(heard.results))
    if order.final is None or not order.agreed:
        return
    if OrderState.VALIDATED in order.states:
        yield from _validated(order, heard, rules, counts)
    else:
        yield from _failed(order, heard, rules, counts)


def complete(order: History, rules: Rules) -> bool:
    """Whether all verdicts on it are still in their topic."""
    first = order.posts[0].fact
    return rules.complete(Source.VERDICTS, first.time_ms, first.partition)


def _contradictions(order: History) -> Iterator[Violation]:
    for check in dict.fromkeys(seen.message.check_type for seen in order.verdicts):
        records = [seen for seen in order.verdicts if seen.message.check_type is check]
        if any(_contradict(records[0], seen) for seen in records[1:]):
            says = f"{check} said " + " and then ".join(seen.message.validation_result for seen in records)
            yield Violation(Kind.CONTRADICTION, order.id, says, facts_of(records))


def _contradict(first: Observed[OrderValidation], later: Observed[OrderValidation]) -> bool:
    """A check remembers what it said for a time only; after that it may judge an old order anew."""
    remembered = later.fact.time_ms - first.fact.time_ms < TTL / timedelta(milliseconds=1)
    return remembered and later.message.validation_result is not first.message.validation_result


def _heard(order: History, rules: Rules) -> _Heard:
    view = order.view
    if view is not None and view.order is not None:
        return _Heard({v.check_type: v.validation_result for v in view.verdicts}, sure=True)
    first = {v.message.check_type: v.message.validation_result for v in reversed(order.verdicts)}
    return _Heard(first, sure=complete(order, rules))


def _validated(order: History, heard: _Heard, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    missing = sorted(rules.required - heard.results.keys())
    against = sorted(c for c in rules.required & heard.results.keys() if heard.results[c] is not ValidationResult.PASS)
    if against or (missing and heard.sure):
        faults = [f"{check} said {heard.results[check]}" for check in against] + [
            f"{check} said nothing" for check in missing
        ]
        says = f"VALIDATED, but {', '.join(faults)}"
        yield Violation(Kind.VALIDATED_WITHOUT, order.id, says, _evidence(order))
    elif missing:
        counts["unchecked verdicts"] += 1


def _failed(order: History, heard: _Heard, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    if any(heard.results[c] is not ValidationResult.PASS for c in rules.required & heard.results.keys()):
        return
    missing = rules.required - heard.results.keys()
    if not heard.sure:
        counts["unchecked verdicts"] += 1
    elif not missing:
        says = "FAILED, though every required check said PASS"
        yield Violation(Kind.FAILED_WITHOUT_REASON, order.id, says, _evidence(order))
    else:
        yield from _out_of_time(order, missing, rules)


def _out_of_time(order: History, missing: frozenset[CheckType], rules: Rules) -> Iterator[Violation]:
    """FAILED for want of verdicts: its reasons have to say so, and its time must have been up."""
    assert order.final is not None
    deadline_s = rules.deadline.total_seconds()
    view = order.view
    names = ", ".join(sorted(missing))
    if view is not None and view.order is not None:
        named = {match[1]: float(match[2]) for reason in view.reasons if (match := _MISSING.fullmatch(reason))}
        if named.keys() != missing:
            says = f"FAILED without a verdict of {names}, and its reasons do not say so"
            yield Violation(Kind.FAILED_WITHOUT_REASON, order.id, says, _evidence(order))
            return
        deadline_s = min(named.values())
    waited_ms = order.final.fact.time_ms - order.posts[0].fact.time_ms
    if waited_ms < deadline_s * 1000 - SKEW_MS:
        says = f"FAILED without a verdict of {names} after {waited_ms / 1000:g} s, its deadline being {deadline_s:g} s"
        yield Violation(Kind.FAILED_WITHOUT_REASON, order.id, says, _evidence(order))


def _evidence(order: History) -> list:  # type: ignore[type-arg]
    return facts_of(order.posts[:1], order.finals, order.verdicts, order.rows[-1:])
