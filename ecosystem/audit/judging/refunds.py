"""Promise: the payments for a cancelled order, and no others, are announced for refund, each once."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

from ecosystem.audit.facts import Fact
from ecosystem.audit.judging.history import Observed, OrderHistory, by_id, facts_of, written_twice
from ecosystem.audit.judging.payments import all_kept, distinct_payments
from ecosystem.audit.report import Rules, Violation, ViolationKind
from ecosystem.audit.sources import Source
from schemas.messages import OrderState, Payment, Refund
from schemas.money import format_amount
from schemas.payments import CURRENCIES_SHOWN

_Refunds = Mapping[str, list[Observed[Refund]]]

_ZERO = Decimal()


class _Bounds(NamedTuple):
    """How much must and may be refunded in a currency.

    A negative payment may have come before the order was cancelled, or carry out a refund: the topics have no common
    order.
    """

    least: Decimal
    most: Decimal


def judge(order: OrderHistory, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Judges refunds by payments and states."""
    if not {Source.REFUNDS, Source.PROGRESS} <= rules.seen:
        return
    announced: _Refunds = by_id(order.of(Source.REFUNDS), lambda refund: refund.refund_id)
    counts["refunds"] += len(announced)
    yield from _repeats(order, announced, rules, counts)
    if order.moving or order.posted is None:
        return
    cancelled = order.first_in(OrderState.CANCELLED)
    if cancelled is None:
        if announced:
            yield Violation(ViolationKind.REFUND_WRONG, order.id, "refunded, but never CANCELLED", _evidence(order))
    elif order.is_consistent:
        yield from _amounts(order, cancelled.fact, [refunds[0] for refunds in announced.values()], rules, counts)


def _repeats(order: OrderHistory, announced: _Refunds, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    for id_, refunds in announced.items():
        counts["refunds published again"] += len(refunds) - 1
        if any(seen.message != refunds[0].message for seen in refunds):
            text = f"refund {id_} was published with different contents"
            yield Violation(ViolationKind.REFUND_WRONG, order.id, text, facts_of(refunds))
        elif rules.exactly_once and written_twice(refunds):
            text = f"refund {id_} was published {len(refunds)} times"
            yield Violation(ViolationKind.REFUND_TWICE, order.id, text, facts_of(refunds))


def _amounts(
    order: OrderHistory, cancelled: Fact, refunds: list[Observed[Refund]], rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    payments = distinct_payments(order)
    bounds = _bounds([seen.message for seen in payments])
    refunded: dict[str, Decimal] = defaultdict(Decimal)
    for seen in refunds:
        refunded[seen.message.ccy] += seen.message.amount
    if not all_kept(rules):
        counts["unchecked refunds"] += len(bounds)
        return
    due_ms = max([cancelled.time_ms, *(seen.fact.time_ms for seen in payments)])
    complete = rules.complete(Source.REFUNDS, cancelled.time_ms, cancelled.partition)
    for ccy in sorted(bounds.keys() | refunded.keys()):
        least, most = bounds.get(ccy, _Bounds(_ZERO, _ZERO))
        text = f"{format_amount(refunded[ccy], ccy)} refunded, and its payments come to {format_amount(most, ccy)}"
        if refunded[ccy] > most:
            yield Violation(ViolationKind.REFUND_WRONG, order.id, text, _evidence(order))
        elif refunded[ccy] < least and complete and len(bounds) <= CURRENCIES_SHOWN:
            if rules.overdue(due_ms):
                yield Violation(ViolationKind.REFUND_MISSING, order.id, f"CANCELLED, {text}", _evidence(order))
            else:
                counts["to be refunded"] += 1


def _bounds(payments: list[Payment]) -> dict[str, _Bounds]:
    result: dict[str, _Bounds] = {}
    for payment in payments:
        least, most = result.get(payment.ccy, _Bounds(_ZERO, _ZERO))
        result[payment.ccy] = _Bounds(least + payment.amount, most + max(payment.amount, _ZERO))
    return result


def _evidence(order: OrderHistory) -> list[Fact]:
    return facts_of(order.posts[:1], order.finals, order.of(Source.PAYMENTS), order.of(Source.REFUNDS))
