"""Promise: the view, which clients read, agrees with the topics and never takes a final state back."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from ecosystem.audit.judging.history import Observed, OrderHistory, facts_of
from ecosystem.audit.judging.verdicts import verdicts_complete
from ecosystem.audit.report import Rules, Violation, ViolationKind
from ecosystem.audit.sources import Source
from orders_service.state import OrderView
from schemas.messages import Order, OrderState

_AFTER_VALIDATED = frozenset({OrderState.SHIPPED, OrderState.CANCELLED})


def judge(order: OrderHistory, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Compares the row of the view, and its earlier versions, with the published states."""
    yield from _changes(order)
    if order.moving or Source.VIEW not in rules.seen:
        return
    view = order.view
    if order.posted is None:
        if view is not None and view.order is not None and not rules.partial and not order.finals:
            yield _differs(order, "the view has an order that was never posted")
        return
    if order.finals:
        if order.is_consistent and (difference := _difference(order, order.posted.message, view, rules)):
            yield _differs(order, difference)
    elif view is not None and view.decided:
        yield from _not_published(order, view, rules, counts)
    if view is not None and verdicts_complete(order, rules):
        published = {(v.message.check_type, v.message.validation_result) for v in order.verdicts}
        unknown = [v for v in view.verdicts if (v.check_type, v.validation_result) not in published]
        if unknown:
            verdict = f"{unknown[0].check_type} {unknown[0].validation_result}"
            yield _differs(order, f"the view has {verdict}, which was not published")


def _changes(order: OrderHistory) -> Iterator[Violation]:
    for before, after in pairwise(order.rows):
        was, now = before.message, after.message
        if was is None or was.order is None or not was.decided:
            continue
        to = "nothing" if now is None or now.order is None else now.order.state
        ended = was.order.state is OrderState.VALIDATED and to in _AFTER_VALIDATED
        if to != was.order.state and not ended:
            text = f"the view went from {was.order.state} to {to}"
            yield Violation(ViolationKind.CHANGED_BACK, order.id, text, facts_of([before, after]))


def _difference(order: OrderHistory, posted: Order, view: OrderView | None, rules: Rules) -> str | None:
    last: Observed[Order] = order.finals[-1]
    if view is None or view.order is None:
        return f"{last.message.state}, and the view does not have it"
    if not view.order.same_content(posted):
        return "the view has other content than posted"
    behind = view.order.state is OrderState.VALIDATED and bool(_AFTER_VALIDATED & order.states)
    if view.order.state not in order.states or (behind and rules.overdue(last.fact.time_ms)):
        return f"{last.message.state}, and the view text {view.order.state}"
    return None


def _not_published(order: OrderHistory, view: OrderView, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """With exactly_once both are one transaction; with at_least_once a restarted worker publishes it later."""
    if rules.exactly_once or rules.overdue(order.rows[-1].fact.time_ms):
        state = view.order.state if view.order else ""
        text = f"the view text {state}, which was never published"
        yield Violation(ViolationKind.NOT_PUBLISHED, order.id, text, facts_of(order.posts[:1], order.rows[-1:]))
    else:
        counts["open"] += 1


def _differs(order: OrderHistory, text: str) -> Violation:
    records = facts_of(order.posts[:1], order.finals, order.verdicts, order.rows[-1:])
    return Violation(ViolationKind.VIEW_DIFFERS, order.id, text, records)
