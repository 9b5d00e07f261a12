"""The view of every order, which clients read: it says what the topics say, and never takes back what it said."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from ecosystem.audit.facts import Source
from ecosystem.audit.judging.history import History, Observed, facts_of
from ecosystem.audit.judging.verdicts import complete
from ecosystem.audit.report import Kind, Rules, Violation
from orders_service.state import OrderView
from schemas.messages import Order, OrderState


def judge(order: History, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Compares the row, and what it was before, with what was announced."""
    yield from _changes(order)
    if order.moving or Source.VIEW not in rules.seen:
        return
    view = order.view
    if order.posted is None:
        if view is not None and view.order is not None and not rules.partial and not order.finals:
            yield _differs(order, "the view has an order that was never posted")
        return
    if order.finals:
        if order.agreed and (fault := _fault(order, order.posted.message, view, rules)):
            yield _differs(order, fault)
    elif view is not None and view.decided:
        yield from _not_announced(order, view, rules, counts)
    if view is not None and complete(order, rules):
        said = {(v.message.check_type, v.message.validation_result) for v in order.verdicts}
        unheard = [v for v in view.verdicts if (v.check_type, v.validation_result) not in said]
        if unheard:
            yield _differs(
                order, f"the view has {unheard[0].check_type} {unheard[0].validation_result}, which was not said"
            )


def _changes(order: History) -> Iterator[Violation]:
    for before, after in pairwise(order.rows):
        was, now = before.message, after.message
        if was is None or was.order is None or not was.decided:
            continue
        to = "nothing" if now is None or now.order is None else now.order.state
        shipped = was.order.state is OrderState.VALIDATED and to is OrderState.SHIPPED
        if to != was.order.state and not shipped:
            says = f"the view went from {was.order.state} to {to}"
            yield Violation(Kind.CHANGED_BACK, order.id, says, facts_of([before, after]))


def _fault(order: History, posted: Order, view: OrderView | None, rules: Rules) -> str | None:
    last: Observed[Order] = order.finals[-1]
    if view is None or view.order is None:
        return f"{last.message.state}, and the view does not have it"
    if not view.order.same_content(posted):
        return "the view has another content than was posted"
    behind = view.order.state is OrderState.VALIDATED and OrderState.SHIPPED in order.states
    if view.order.state not in order.states or (behind and rules.overdue(last.fact.time_ms)):
        return f"{last.message.state}, and the view says {view.order.state}"
    return None


def _not_announced(order: History, view: OrderView, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Exactly once, both are one transaction; at least once, a worker that stopped in between makes up for it."""
    if rules.exactly_once or rules.overdue(order.rows[-1].fact.time_ms):
        state = view.order.state if view.order else ""
        says = f"the view says {state}, which was never announced"
        yield Violation(Kind.NOT_ANNOUNCED, order.id, says, facts_of(order.posts[:1], order.rows[-1:]))
    else:
        counts["open"] += 1


def _differs(order: History, says: str) -> Violation:
    return Violation(
        Kind.VIEW_DIFFERS, order.id, says, facts_of(order.posts[:1], order.finals, order.verdicts, order.rows[-1:])
    )
