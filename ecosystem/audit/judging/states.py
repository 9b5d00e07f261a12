"""The promise about states: an order that was posted gets one final state, and what is decided stays decided."""

from collections import Counter
from collections.abc import Iterator

from ecosystem.audit.facts import Source
from ecosystem.audit.judging.history import History, facts_of
from ecosystem.audit.report import Kind, Rules, Violation
from schemas.messages import OrderState


def judge(order: History, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """What the topic `orders` alone tells, and the view of an order that is still open."""
    posted = order.posted
    if posted is not None and order.finals:
        yield from _content(order)
        if order.finals[0].fact[1:3] < posted.fact[1:3]:
            yield Violation(
                Kind.NEVER_POSTED,
                order.id,
                f"{order.finals[0].message.state} before it was posted",
                facts_of(order.finals[:1], order.posts[:1]),
            )
    elif order.finals and not rules.partial:
        states = ", ".join(sorted(order.states))
        yield Violation(Kind.NEVER_POSTED, order.id, f"{states}, but never posted", facts_of(order.finals))
    if order.finals:
        yield from _order_of_states(order, rules)
        yield from _repeats(order, rules, counts)
    elif posted is not None and not order.moving:
        yield from _waiting(order, rules, counts)


def _content(order: History) -> Iterator[Violation]:
    posted = order.posts[0].message
    differing = [seen for seen in order.finals if not seen.message.same_content(posted)]
    if differing:
        says = f"{differing[0].message.state} with another content than was posted"
        yield Violation(Kind.CONTENT_DIFFERS, order.id, says, facts_of(order.posts[:1], differing))


def _order_of_states(order: History, rules: Rules) -> Iterator[Violation]:
    """Its states, repeats aside, have to be one, or VALIDATED and then SHIPPED."""
    walk = list(dict.fromkeys(seen.message.state for seen in order.finals))
    if walk == [OrderState.SHIPPED] and order.posted is None and rules.partial:
        return
    if walk in ([OrderState.VALIDATED], [OrderState.FAILED], [OrderState.VALIDATED, OrderState.SHIPPED]):
        return
    says = " and then ".join(walk)
    if OrderState.VALIDATED in walk and OrderState.FAILED in walk:
        yield Violation(Kind.TWO_FINALS, order.id, says, facts_of(order.finals))
    else:
        says = says if len(walk) > 1 else f"{says}, but never VALIDATED"
        yield Violation(Kind.CHANGED_BACK, order.id, says, facts_of(order.finals))


def _repeats(order: History, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    for state, times in Counter(seen.message.state for seen in order.finals).items():
        if times > 1:
            counts["announced again"] += times - 1
            if rules.exactly_once:
                same = [seen for seen in order.finals if seen.message.state is state]
                yield Violation(Kind.ANNOUNCED_TWICE, order.id, f"{state} announced {times} times", facts_of(same))


def _waiting(order: History, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """An order without a final state: its timer says until when it may wait."""
    posted = order.posts[0]
    view = order.view
    if view is not None and view.decided:
        return  # `view` says it
    timer = order.timers[-1].message if order.timers else None
    if timer is not None:
        due_ms, why = int(timer.at.timestamp() * 1000), "its deadline has passed"
    elif view is not None and view.order is not None and Source.TIMERS in rules.seen:
        due_ms, why = order.rows[-1].fact.time_ms, "it has no deadline: nothing will ever wake it"
    else:
        due_ms = posted.fact.time_ms + int(rules.deadline.total_seconds() * 1000)
        why = "the orders service has not decided it" if view else "the orders service has not seen it"
    if rules.overdue(due_ms):
        heard = ", ".join(f"{v.message.check_type} {v.message.validation_result}" for v in order.verdicts) or "none"
        says = f"acknowledged, without a final state, and {why} (verdicts: {heard})"
        yield Violation(
            Kind.STUCK, order.id, says, facts_of(order.posts, order.verdicts, order.rows[-1:], order.timers[-1:])
        )
    else:
        counts["open"] += 1
