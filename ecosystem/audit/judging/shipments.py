"""The promise about shipments: an order is shipped once, after all that has to happen before, and then surely."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from ecosystem.audit.facts import Fact, Source
from ecosystem.audit.judging.history import History, Observed, facts_of
from ecosystem.audit.judging.payments import Payments, payments_of
from ecosystem.audit.report import Kind, Rules, Violation
from fulfilment_service.state import Progress
from schemas.messages import Fulfilled, HomeCheckin, Need, Order, OrderState
from schemas.money import format_amount
from schemas.payments import CURRENCIES_SHOWN


class _Happened(NamedTuple):
    """What the topics, and where they are no longer kept the fulfilment service's row, tell of an order's events."""

    order: Order
    row: Progress | None
    payments: Payments
    accepted: tuple[Observed[HomeCheckin], ...]

    def missing(self, states: frozenset[OrderState], needs: tuple[Need, ...], currency: str) -> tuple[Need, ...]:
        """Which of the needed events did not happen."""
        paid = self.payments.paid.sum(currency)
        if self.row is not None and not self.payments.whole:
            paid = max(paid, self.row.sum(currency))
        happened = {
            Need.VALIDATED: OrderState.VALIDATED in states,
            Need.PAID: paid >= self.order.value,
            Need.CHECKED_IN: bool(self.accepted) or (self.row is not None and self.row.checked_in),
        }
        return tuple(need for need in needs if not happened[need])


def judge(order: History, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Holds what was announced as fulfilled and shipped against payments and check-ins."""
    if Source.PROGRESS not in rules.seen:
        return
    fulfilled: list[Observed[Fulfilled]] = order.of(Source.FULFILMENTS)
    if len(fulfilled) > 1:
        counts["fulfilled again"] += len(fulfilled) - 1
        if rules.exactly_once:
            says = f"announced as fulfilled {len(fulfilled)} times"
            yield Violation(Kind.FULFILLED_TWICE, order.id, says, facts_of(fulfilled))
    if order.moving:
        return
    if order.posted is None:
        if fulfilled and not rules.partial:
            yield Violation(Kind.SHIPPED_WITHOUT, order.id, "fulfilled, but never posted", facts_of(fulfilled))
        return
    happened = _happened(order, order.posted.message, rules)
    if order.agreed or not order.finals:
        yield from _too_early(order, happened, fulfilled, rules)
        yield from _too_late(order, happened, fulfilled, rules, counts)
        if (fault := _fault(order, happened, fulfilled, rules)) is not None:
            yield Violation(Kind.PROGRESS_DIFFERS, order.id, fault, _evidence(order))


def accepted(order: History) -> tuple[Observed[HomeCheckin], ...]:
    """Its check-ins that were not rejected, each once."""
    rejected = {seen.message.event_id for seen in order.of(Source.REJECTIONS)}
    first = {seen.message.event_id: seen for seen in reversed(order.of(Source.CHECK_INS))}
    return tuple(seen for id_, seen in first.items() if id_ not in rejected)


def _happened(order: History, posted: Order, rules: Rules) -> _Happened:
    return _Happened(posted, order.row(Source.PROGRESS), payments_of(order, rules), accepted(order))


def _too_early(
    order: History, happened: _Happened, fulfilled: list[Observed[Fulfilled]], rules: Rules
) -> Iterator[Violation]:
    shipped = order.came_to(OrderState.SHIPPED)
    if not fulfilled and shipped is None:
        return
    missing = happened.missing(order.states, (Need.VALIDATED, *rules.needs), rules.currency)
    if not happened.payments.steady:
        missing = tuple(need for need in missing if need is not Need.PAID)  # it may have been enough for a while
    faults = [f"{need} did not happen{_short(need, happened, rules)}" for need in missing]
    posted = order.posts[0].fact
    if not fulfilled and shipped and rules.complete(Source.FULFILMENTS, posted.time_ms, posted.partition):
        faults.append("fulfilment never said so")
    if faults:
        what = OrderState.SHIPPED if shipped else "fulfilled"
        says = f"{what}, but {', '.join(dict.fromkeys(faults))}"
        yield Violation(Kind.SHIPPED_WITHOUT, order.id, says, _evidence(order))


def _too_late(
    order: History, happened: _Happened, fulfilled: list[Observed[Fulfilled]], rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    if order.states != {OrderState.VALIDATED}:
        return
    if fulfilled:
        kind, says, due_ms = Kind.NOT_SHIPPED, "fulfilled, and never SHIPPED", fulfilled[0].fact.time_ms
    elif not happened.missing(order.states, rules.needs, rules.currency) and happened.payments.steady:
        events = facts_of(order.finals, order.of(Source.PAYMENTS), happened.accepted)
        kind, due_ms = Kind.NOT_FULFILLED, max(fact.time_ms for fact in events)
        says = f"{', '.join(rules.needs)}: all that is needed has happened, and it was never announced as fulfilled"
    else:
        return
    if rules.overdue(due_ms):
        yield Violation(kind, order.id, says, _evidence(order))
    else:
        counts["to be shipped"] += 1


def _fault(order: History, happened: _Happened, fulfilled: list[Observed[Fulfilled]], rules: Rules) -> str | None:
    """What is wrong with the service's row, which clients read: each payment is in it once, and so on."""
    row = happened.row
    events = facts_of(order.finals, order.of(Source.PAYMENTS), order.of(Source.CHECK_INS), fulfilled)
    if not events or not rules.overdue(max(fact.time_ms for fact in events)):
        return None
    if row is None:
        needed = order.of(Source.PAYMENTS) or happened.accepted or fulfilled
        return "the fulfilment service does not know of its payments and check-ins" if needed else None
    since_ms = order.posts[0].fact.time_ms
    state = order.finals[-1].message.state if order.finals else OrderState.CREATED
    if row.state is not state:
        return f"{state}, and the fulfilment service has it as {row.state}"
    if row.value != happened.order.value:
        worth, known = format_amount(happened.order.value, rules.currency), "nothing"
        if row.value is not None:
            known = format_amount(row.value, rules.currency)
        return f"worth {worth}, and the fulfilment service has {known}"
    if (fault := _sum_differs(row, happened.payments, rules)) is not None:
        return fault
    if (row.check_ins or row.waiting) and order.finals:
        return "decided, and check-ins still wait for that"
    if happened.accepted and order.finals and OrderState.FAILED not in order.states and not row.checked_in:
        return "the fulfilment service does not have its check-in"
    if row.fulfilled is not bool(fulfilled) and rules.complete(Source.FULFILMENTS, since_ms):
        return f"the fulfilment service has fulfilled={row.fulfilled}, and announced it {len(fulfilled)} times"
    return None


def _sum_differs(row: Progress, payments: Payments, rules: Rules) -> str | None:
    """What is wrong with the sums of an order's row. Some of its payments may have been removed since."""
    for currency, paid in payments.paid.sums.items():
        known = row.sum(currency) if currency == rules.currency else row.received.sum(currency)
        kept = currency == rules.currency or len(payments.paid.sums) < CURRENCIES_SHOWN
        if kept and (known != paid if payments.whole else known < paid and payments.steady):
            has, came = format_amount(known, currency), format_amount(paid, currency)
            return f"the fulfilment service has {has} paid, and payments come to {came}"
    known = row.sum(rules.currency)
    if payments.whole and not payments.paid.sums and known:
        return f"the fulfilment service has {format_amount(known, rules.currency)} paid, and nobody paid"
    return None


def _short(need: Need, happened: _Happened, rules: Rules) -> str:
    """What is missing of the value of an order that is not paid."""
    if need is not Need.PAID:
        return ""
    paid, value = happened.payments.paid.sum(rules.currency), happened.order.value
    return f" ({format_amount(paid, rules.currency)} of {format_amount(value, rules.currency)})"


def _evidence(order: History) -> list[Fact]:
    around = (order.of(s) for s in (Source.PAYMENTS, Source.CHECK_INS, Source.REJECTIONS, Source.FULFILMENTS))
    return facts_of(order.posts[:1], order.finals, *around, order.of(Source.PROGRESS)[-1:])
