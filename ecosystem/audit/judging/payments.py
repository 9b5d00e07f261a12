"""Sums of an order's payments, by the services' own definition."""

from typing import NamedTuple

from ecosystem.audit.judging.history import Observed, OrderHistory, by_id
from ecosystem.audit.report import SKEW_MS, Rules
from ecosystem.audit.sources import Source
from schemas.messages import Payment
from schemas.payments import PaymentTotals


class Payments(NamedTuple):
    """The distinct payments of an order.

    Arguments:
        paid: their sums by currency.
        last_ms: time of the last payment in the currency of orders; 0 if there is none.
        steady: whether no amount is negative. Otherwise the order may have been paid for some time only.
        complete: whether all payments are still on the topic.
    """

    paid: PaymentTotals
    last_ms: int
    steady: bool
    complete: bool


def payments_of(order: OrderHistory, rules: Rules) -> Payments:
    """Sums the distinct payments of an order."""
    paid, last_ms, steady = PaymentTotals(), 0, True
    for seen in distinct_payments(order):
        paid = paid.plus(seen.message, rules.currency)
        if seen.message.ccy == rules.currency:
            last_ms = max(last_ms, seen.fact.time_ms)
            steady &= seen.message.amount >= 0
    return Payments(paid, last_ms, steady, all_kept(rules))


def distinct_payments(order: OrderHistory) -> list[Observed[Payment]]:
    """Returns the first payment of each id: a later one of the same id does not count."""
    payments: list[Observed[Payment]] = order.of(Source.PAYMENTS)
    return [seen[0] for seen in by_id(payments, lambda payment: payment.id).values()]


def all_kept(rules: Rules) -> bool:
    """Whether all payments are still on the topic."""
    return rules.complete(Source.PAYMENTS, SKEW_MS)
