"""Judges one order by all promises."""

from collections import Counter
from collections.abc import Iterable, Iterator

from ecosystem.audit.facts import Fact
from ecosystem.audit.judging import checkins, emails, refunds, required, reservations, shipments, states, verdicts, view
from ecosystem.audit.judging.attempts import attempts_of
from ecosystem.audit.judging.emails import CustomerLookup
from ecosystem.audit.judging.history import OrderHistory, build_history
from ecosystem.audit.judging.reservations import StockChangeCallback
from ecosystem.audit.report import Rules, Violation, ViolationKind


def judge(
    order_id: str,
    facts: Iterable[Fact],
    rules: Rules,
    counts: Counter[str],
    on_stock_change: StockChangeCallback,
    customers: CustomerLookup = lambda _: (),
) -> Iterator[Violation]:
    """Yields violations of one order. Reports its reserved and shipped pieces to `on_stock_change`."""
    whole = build_history(order_id, facts)
    _count(whole, rules, counts)
    *failed, order = attempts_of(whole)
    counts["decided anew"] += len(failed)
    for attempt in failed:
        yield from _judge_decision(attempt, rules, counts, on_stock_change)
        yield from emails.judge(attempt, rules, counts, customers)
    if order.unreadable_rows:
        text = "a row of the order is unreadable"
        yield Violation(ViolationKind.UNREADABLE_ROW, order_id, text, order.unreadable_rows)
    yield from _judge_decision(order, rules, counts, on_stock_change)
    yield from shipments.judge(order, rules, counts)
    yield from refunds.judge(order, rules, counts)
    yield from checkins.judge(order, rules, counts)
    yield from emails.judge(order, rules, counts, customers)


def _judge_decision(
    order: OrderHistory, rules: Rules, counts: Counter[str], on_stock_change: StockChangeCallback
) -> Iterator[Violation]:
    yield from states.judge(order, rules, counts)
    yield from verdicts.judge(order, rules, counts)
    yield from required.judge(order, rules)
    yield from view.judge(order, rules, counts)
    yield from reservations.judge(order, rules, counts, on_stock_change)


def _count(order: OrderHistory, rules: Rules, counts: Counter[str]) -> None:
    counts["unreadable"] += len(order.unreadable)
    counts["verdicts"] += len(order.verdicts)
    if order.posted is not None:
        counts["orders"] += 1
        counts["posted again"] += len(order.posts) - 1
        counts["moving"] += order.moving
    elif rules.partial and (order.finals or order.rows):
        counts["posted before"] += 1
    elif order.verdicts and not order.finals:
        counts["verdicts on nothing"] += len(order.verdicts)
    for state in order.states:
        counts[state] += 1
