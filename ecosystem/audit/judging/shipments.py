"""Promise: an order is shipped once, as soon as all its prerequisites are met, and not before."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from ecosystem.audit.facts import Fact
from ecosystem.audit.judging.history import Observed, OrderHistory, facts_of, written_twice
from ecosystem.audit.judging.payments import Payments, payments_of
from ecosystem.audit.report import Rules, Violation, ViolationKind
from ecosystem.audit.sources import Source
from fulfilment_service.state import Progress
from schemas.messages import Fulfilled, HomeCheckin, Need, Order, OrderState
from schemas.money import format_amount
from schemas.payments import CURRENCIES_SHOWN


class _OrderEvents(NamedTuple):
    """Events of an order, from the topics and, for events no longer kept, from the row of the fulfilment service."""

    order: Order
    row: Progress | None
    payments: Payments
    accepted: tuple[Observed[HomeCheckin], ...]

    def missing(self, states: frozenset[OrderState], needs: tuple[Need, ...], currency: str) -> tuple[Need, ...]:
        """Returns the needs that are not met."""
        paid = self.payments.paid.sum(currency)
        if self.row is not None and not self.payments.complete:
            paid = max(paid, self.row.sum(currency))
        happened = {
            Need.VALIDATED: OrderState.VALIDATED in states,
            Need.PAID: paid >= self.order.value,
            Need.CHECKED_IN: bool(self.accepted) or (self.row is not None and self.row.checked_in),
        }
        return tuple(need for need in needs if not happened[need])


def judge(order: OrderHistory, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Judges fulfilments and shipments by payments and check-ins."""
    if Source.PROGRESS not in rules.seen:
        return
    fulfilled: list[Observed[Fulfilled]] = order.of(Source.FULFILMENTS)
    if len(fulfilled) > 1:
        counts["fulfilled again"] += len(fulfilled) - 1
        if rules.exactly_once and written_twice(fulfilled):
            text = f"fulfilment published {len(fulfilled)} times"
            yield Violation(ViolationKind.FULFILLED_TWICE, order.id, text, facts_of(fulfilled))
    if order.moving:
        return
    if order.posted is None:
        if fulfilled and not rules.partial:
            yield Violation(ViolationKind.SHIPPED_WITHOUT, order.id, "fulfilled, but never posted", facts_of(fulfilled))
        return
    events = _events(order, order.posted.message, rules)
    if order.is_consistent or not order.finals:
        yield from _too_early(order, events, fulfilled, rules)
        yield from _too_late(order, events, fulfilled, rules, counts)
        if (fault := _row_difference(order, events, fulfilled, rules)) is not None:
            yield Violation(ViolationKind.PROGRESS_DIFFERS, order.id, fault, _evidence(order))


def accepted(order: OrderHistory) -> tuple[Observed[HomeCheckin], ...]:
    """Returns the distinct check-ins that were not rejected."""
    rejected = {seen.message.event_id for seen in order.of(Source.REJECTIONS)}
    first = {seen.message.event_id: seen for seen in reversed(order.of(Source.CHECK_INS))}
    return tuple(seen for id_, seen in first.items() if id_ not in rejected)


def _events(order: OrderHistory, posted: Order, rules: Rules) -> _OrderEvents:
    return _OrderEvents(posted, order.row(Source.PROGRESS), payments_of(order, rules), accepted(order))


def _too_early(
    order: OrderHistory, events: _OrderEvents, fulfilled: list[Observed[Fulfilled]], rules: Rules
) -> Iterator[Violation]:
    shipped = order.first_in(OrderState.SHIPPED)
    if not fulfilled and shipped is None:
        return
    missing = events.missing(order.states, (Need.VALIDATED, *rules.needs), rules.currency)
    if not events.payments.steady:
        missing = tuple(need for need in missing if need is not Need.PAID)  # it may have been paid for some time
    faults = [f"{need} is missing{_short(need, events, rules)}" for need in missing]
    posted = order.posts[0].fact
    if not fulfilled and shipped and rules.complete(Source.FULFILMENTS, posted.time_ms, posted.partition):
        faults.append("no fulfilment was published")
    if faults:
        what = OrderState.SHIPPED if shipped else "fulfilled"
        text = f"{what}, but {', '.join(dict.fromkeys(faults))}"
        yield Violation(ViolationKind.SHIPPED_WITHOUT, order.id, text, _evidence(order))


def _too_late(
    order: OrderHistory, events: _OrderEvents, fulfilled: list[Observed[Fulfilled]], rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    if order.states != {OrderState.VALIDATED}:
        return
    if fulfilled:
        kind, text, due_ms = ViolationKind.NOT_SHIPPED, "fulfilled, and never SHIPPED", fulfilled[0].fact.time_ms
    elif not events.missing(order.states, rules.needs, rules.currency) and events.payments.steady:
        facts = facts_of(order.finals, order.of(Source.PAYMENTS), events.accepted)
        kind, due_ms = ViolationKind.NOT_FULFILLED, max(fact.time_ms for fact in facts)
        text = f"{', '.join(rules.needs)}: all prerequisites are met, and no fulfilment was published"
    else:
        return
    if rules.overdue(due_ms):
        yield Violation(kind, order.id, text, _evidence(order))
    else:
        counts["to be shipped"] += 1


def _row_difference(
    order: OrderHistory, events: _OrderEvents, fulfilled: list[Observed[Fulfilled]], rules: Rules
) -> str | None:
    """Returns what is wrong with the row of the fulfilment service, which clients read."""
    row = events.row
    facts = facts_of(order.finals, order.of(Source.PAYMENTS), order.of(Source.CHECK_INS), fulfilled)
    if not facts or not rules.overdue(max(fact.time_ms for fact in facts)):
        return None
    if row is None:
        needed = order.of(Source.PAYMENTS) or events.accepted or fulfilled
        return "the fulfilment service has no row for its payments and check-ins" if needed else None
    since_ms = order.posts[0].fact.time_ms
    state = order.finals[-1].message.state if order.finals else OrderState.CREATED
    if row.state is not state:
        return f"{state}, and the fulfilment service has it as {row.state}"
    if row.value != events.order.value:
        worth, known = format_amount(events.order.value, rules.currency), "nothing"
        if row.value is not None:
            known = format_amount(row.value, rules.currency)
        return f"worth {worth}, and the fulfilment service has {known}"
    if (fault := _sum_differs(row, events.payments, rules)) is not None:
        return fault
    if (row.check_ins or row.waiting) and order.finals:
        return "decided, and check-ins still wait for that"
    if events.accepted and order.finals and OrderState.FAILED not in order.states and not row.checked_in:
        return "the fulfilment service does not have its check-in"
    if row.fulfilled is not bool(fulfilled) and rules.complete(Source.FULFILMENTS, since_ms):
        return f"the fulfilment service has fulfilled={row.fulfilled}, and published it {len(fulfilled)} times"
    return None


def _sum_differs(row: Progress, payments: Payments, rules: Rules) -> str | None:
    """Returns what is wrong with the sums in the row. Some payments may no longer be on the topic."""
    for currency, paid in payments.paid.sums.items():
        known = row.sum(currency) if currency == rules.currency else row.received.sum(currency)
        kept = currency == rules.currency or len(payments.paid.sums) < CURRENCIES_SHOWN
        if kept and (known != paid if payments.complete else known < paid and payments.steady):
            has, came = format_amount(known, currency), format_amount(paid, currency)
            return f"the fulfilment service has {has} paid, the payments add up to {came}"
    known = row.sum(rules.currency)
    if payments.complete and not payments.paid.sums and known:
        return f"the fulfilment service has {format_amount(known, rules.currency)} paid, and there is no payment"
    return None


def _short(need: Need, events: _OrderEvents, rules: Rules) -> str:
    """Returns how much of the value is paid."""
    if need is not Need.PAID:
        return ""
    paid, value = events.payments.paid.sum(rules.currency), events.order.value
    return f" ({format_amount(paid, rules.currency)} of {format_amount(value, rules.currency)})"


def _evidence(order: OrderHistory) -> list[Fact]:
    others = (order.of(s) for s in (Source.PAYMENTS, Source.CHECK_INS, Source.REJECTIONS, Source.FULFILMENTS))
    return facts_of(order.posts[:1], order.finals, *others, order.of(Source.PROGRESS)[-1:])
