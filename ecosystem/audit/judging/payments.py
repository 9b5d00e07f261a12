"""Sums of an order's payments, by the services' own definition."""

from typing import NamedTuple

from ecosystem.audit.judging.history import Observed, OrderHistory
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
    """Sums the payments of an order. Of one id, the first payment counts."""
    first: dict[str, Observed[Payment]] = {seen.message.id: seen for seen in reversed(order.of(Source.PAYMENTS))}
    paid, last_ms, steady = PaymentTotals(), 0, True
    for seen in reversed(first.values()):
        paid = paid.plus(seen.message, rules.currency)
        if seen.message.ccy == rules.currency:
            last_ms = max(last_ms, seen.fact.time_ms)
            steady &= seen.message.amount >= 0
    return Payments(paid, last_ms, steady, rules.complete(Source.PAYMENTS, SKEW_MS))
