"""Promise: the final state follows from the first verdict of each required check."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import NamedTuple

from ecosystem.audit.facts import Fact
from ecosystem.audit.judging.history import Observed, OrderHistory, facts_of
from ecosystem.audit.judging.required import required_of
from ecosystem.audit.report import SKEW_MS, Rules, Violation, ViolationKind
from ecosystem.audit.sources import Source
from runtime.state.ttl_table import TTL
from schemas.messages import CheckType, OrderState, OrderValidation, ValidationResult

_MISSING = re.compile(r"(\w+): no verdict within ([\d.e+]+) s")
"""Reason of an order that failed at its deadline (`orders_service/processors.py`)."""


class _CountedVerdicts(NamedTuple):
    """The verdicts that counted. `complete`: the view names them, or all are still on the topic."""

    results: Mapping[CheckType, ValidationResult]
    complete: bool


def judge(order: OrderHistory, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Judges whether the verdicts agree with each other and with the final state."""
    yield from _contradictions(order)
    if order.posted is None or order.moving:
        return
    counted = _counted(order, rules)
    counts["late verdicts"] += max(0, len(order.verdicts) - len(counted.results))
    if order.final is None or not order.is_consistent:
        return
    if OrderState.VALIDATED in order.states:
        yield from _validated(order, counted, rules, counts)
    elif OrderState.FAILED in order.states:
        yield from _failed(order, counted, rules, counts)


def verdicts_complete(order: OrderHistory, rules: Rules) -> bool:
    """Whether all verdicts on the order are still on their topic."""
    first = order.posts[0].fact
    return rules.complete(Source.VERDICTS, first.time_ms, first.partition)


def _contradictions(order: OrderHistory) -> Iterator[Violation]:
    for check in dict.fromkeys(seen.message.check_type for seen in order.verdicts):
        records = [seen for seen in order.verdicts if seen.message.check_type == check]
        if any(_contradict(records[0], seen) for seen in records[1:]):
            text = f"{check} gave " + " and then ".join(seen.message.validation_result for seen in records)
            yield Violation(ViolationKind.CONTRADICTION, order.id, text, facts_of(records))


def _contradict(first: Observed[OrderValidation], later: Observed[OrderValidation]) -> bool:
    """A check remembers a verdict for `TTL`; after that it may judge the order anew."""
    remembered = later.fact.time_ms - first.fact.time_ms < TTL / timedelta(milliseconds=1)
    return remembered and later.message.validation_result is not first.message.validation_result


def _counted(order: OrderHistory, rules: Rules) -> _CountedVerdicts:
    view = order.view
    if view is not None and view.order is not None:
        return _CountedVerdicts({v.check_type: v.validation_result for v in view.verdicts}, complete=True)
    first = {v.message.check_type: v.message.validation_result for v in reversed(order.verdicts)}
    return _CountedVerdicts(first, complete=verdicts_complete(order, rules))


def _validated(
    order: OrderHistory, counted: _CountedVerdicts, rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    required, results = required_of(order, rules), counted.results
    missing = sorted(required - results.keys())
    against = sorted(c for c in required & results.keys() if results[c] is not ValidationResult.PASS)
    if against or (missing and counted.complete):
        faults = [f"{check} gave {counted.results[check]}" for check in against] + [
            f"{check} gave no verdict" for check in missing
        ]
        text = f"VALIDATED, but {', '.join(faults)}"
        yield Violation(ViolationKind.VALIDATED_WITHOUT, order.id, text, _evidence(order))
    elif missing:
        counts["unchecked verdicts"] += 1


def _failed(order: OrderHistory, counted: _CountedVerdicts, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    required, results = required_of(order, rules), counted.results
    if any(results[c] is not ValidationResult.PASS for c in required & results.keys()):
        return
    missing = required - results.keys()
    if not counted.complete:
        counts["unchecked verdicts"] += 1
    elif not missing:
        text = "FAILED, although every required check gave PASS"
        yield Violation(ViolationKind.FAILED_WITHOUT_REASON, order.id, text, _evidence(order))
    else:
        yield from _out_of_time(order, missing, rules)


def _out_of_time(order: OrderHistory, missing: frozenset[CheckType], rules: Rules) -> Iterator[Violation]:
    """Judges an order that failed for missing verdicts: its reasons must name them, after its deadline."""
    assert order.final is not None
    deadline_s = rules.deadline.total_seconds()
    view = order.view
    names = ", ".join(sorted(missing))
    if view is not None and view.order is not None:
        named = {match[1]: float(match[2]) for reason in view.reasons if (match := _MISSING.fullmatch(reason))}
        if named.keys() != missing:
            text = f"FAILED without a verdict of {names}, and its reasons do not name it"
            yield Violation(ViolationKind.FAILED_WITHOUT_REASON, order.id, text, _evidence(order))
            return
        deadline_s = min(named.values())
    waited_ms = order.final.fact.time_ms - order.posts[0].fact.time_ms
    if waited_ms < deadline_s * 1000 - SKEW_MS:
        text = f"FAILED without a verdict of {names} after {waited_ms / 1000:g} s, its deadline was {deadline_s:g} s"
        yield Violation(ViolationKind.FAILED_WITHOUT_REASON, order.id, text, _evidence(order))


def _evidence(order: OrderHistory) -> list[Fact]:
    return facts_of(order.posts[:1], order.finals, order.verdicts, order.rows[-1:])
