"""One order: all that its facts tell."""

from collections import Counter
from collections.abc import Iterable, Iterator

from ecosystem.audit.facts import Fact
from ecosystem.audit.judging import checkins, emails, reservations, shipments, states, verdicts, view
from ecosystem.audit.judging.emails import Customers
from ecosystem.audit.judging.history import History, history
from ecosystem.audit.judging.reservations import Changed
from ecosystem.audit.report import Kind, Rules, Violation


def judge(
    order_id: str,
    facts: Iterable[Fact],
    rules: Rules,
    counts: Counter[str],
    changed: Changed,
    customers: Customers = lambda _: (),
) -> Iterator[Violation]:
    """Violations of one order. Counts what it was, and tells `changed` what it held and what was shipped."""
    order = history(order_id, facts)
    _count(order, rules, counts)
    if order.bad_rows:
        yield Violation(Kind.UNREADABLE_ROW, order_id, "a row of it cannot be read", order.bad_rows)
    yield from states.judge(order, rules, counts)
    yield from verdicts.judge(order, rules, counts)
    yield from view.judge(order, rules, counts)
    yield from reservations.judge(order, rules, counts, changed)
    yield from shipments.judge(order, rules, counts)
    yield from checkins.judge(order, rules, counts)
    yield from emails.judge(order, rules, counts, customers)


def _count(order: History, rules: Rules, counts: Counter[str]) -> None:
    counts["unreadable"] += len(order.unreadable)
    counts["verdicts"] += len(order.verdicts)
    if order.posted is not None:
        counts["orders"] += 1
        counts["posted again"] += len(order.posts) - 1
        counts["moving"] += order.moving
    elif rules.partial and (order.finals or order.rows):
        counts["began before"] += 1
    elif order.verdicts and not order.finals:
        counts["verdicts on nothing"] += len(order.verdicts)
    for state in order.states:
        counts[state] += 1
