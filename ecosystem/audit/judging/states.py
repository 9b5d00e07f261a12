"""Promise: every posted order reaches one final state, and keeps it."""

from collections import Counter
from collections.abc import Iterator

from ecosystem.audit.judging.history import OrderHistory, facts_of, written_twice
from ecosystem.audit.report import Rules, Violation, ViolationKind
from ecosystem.audit.sources import Source
from schemas.messages import OrderState


def judge(order: OrderHistory, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Judges by the topic `orders` alone, and an open order also by its view and timer."""
    posted = order.posted
    if posted is not None and order.finals:
        yield from _content(order)
        if order.finals[0].fact[1:3] < posted.fact[1:3]:
            yield Violation(
                ViolationKind.NEVER_POSTED,
                order.id,
                f"{order.finals[0].message.state} before it was posted",
                facts_of(order.finals[:1], order.posts[:1]),
            )
    elif order.finals and not rules.partial:
        states = ", ".join(sorted(order.states))
        yield Violation(ViolationKind.NEVER_POSTED, order.id, f"{states}, but never posted", facts_of(order.finals))
    if order.finals:
        yield from _sequence(order, rules)
        yield from _repeats(order, rules, counts)
    elif posted is not None and not order.moving:
        yield from _open(order, rules, counts)


_SEQUENCES = (
    [OrderState.VALIDATED],
    [OrderState.FAILED],
    [OrderState.CANCELLED],
    [OrderState.VALIDATED, OrderState.SHIPPED],
    [OrderState.VALIDATED, OrderState.CANCELLED],
)

_EXCLUSIVE = (
    (OrderState.VALIDATED, OrderState.FAILED),
    (OrderState.CANCELLED, OrderState.FAILED),
    (OrderState.CANCELLED, OrderState.SHIPPED),
)
"""Pairs of final states of which an order has at most one."""


def _content(order: OrderHistory) -> Iterator[Violation]:
    posted = order.posts[0].message
    differing = [seen for seen in order.finals if not seen.message.same_content(posted)]
    if differing:
        text = f"{differing[0].message.state} with other content than posted"
        yield Violation(ViolationKind.CONTENT_DIFFERS, order.id, text, facts_of(order.posts[:1], differing))


def _sequence(order: OrderHistory, rules: Rules) -> Iterator[Violation]:
    """The states, without repetitions, must be one, or VALIDATED and then SHIPPED or CANCELLED."""
    sequence = list(dict.fromkeys(seen.message.state for seen in order.finals))
    if sequence == [OrderState.SHIPPED] and order.posted is None and rules.partial:
        return
    if sequence in _SEQUENCES:
        return
    text = " and then ".join(sequence)
    if any({*pair} <= {*sequence} for pair in _EXCLUSIVE):
        yield Violation(ViolationKind.TWO_FINALS, order.id, text, facts_of(order.finals))
    else:
        text = text if len(sequence) > 1 else f"{text}, but never VALIDATED"
        yield Violation(ViolationKind.CHANGED_BACK, order.id, text, facts_of(order.finals))


def _repeats(order: OrderHistory, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    for state, times in Counter(seen.message.state for seen in order.finals).items():
        if times > 1:
            counts["published again"] += times - 1
            same = [seen for seen in order.finals if seen.message.state is state]
            if rules.exactly_once and written_twice(same):
                text = f"{state} published {times} times"
                yield Violation(ViolationKind.PUBLISHED_TWICE, order.id, text, facts_of(same))


def _open(order: OrderHistory, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Judges an order without a final state by its timer, or by the deadline."""
    posted = order.posts[0]
    view = order.view
    if view is not None and view.decided:
        return  # judged in view.py
    timer = order.timers[-1].message if order.timers else None
    if timer is not None:
        due_ms, why = int(timer.at.timestamp() * 1000), "its deadline has passed"
    elif view is not None and view.order is not None and Source.TIMERS in rules.seen:
        due_ms, why = order.rows[-1].fact.time_ms, "it has no timer: nothing will ever decide it"
    else:
        due_ms = posted.fact.time_ms + int(rules.deadline.total_seconds() * 1000)
        why = "the orders service has not decided it" if view else "the orders service has not read it"
    if rules.overdue(due_ms):
        verdicts = ", ".join(f"{v.message.check_type} {v.message.validation_result}" for v in order.verdicts) or "none"
        text = f"acknowledged, without a final state, and {why} (verdicts: {verdicts})"
        records = facts_of(order.posts, order.verdicts, order.rows[-1:], order.timers[-1:])
        yield Violation(ViolationKind.STUCK, order.id, text, records)
    else:
        counts["open"] += 1
