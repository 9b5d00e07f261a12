"""What was paid for an order, as the topic of payments tells it, by the definition that the services have."""

from typing import NamedTuple

from ecosystem.audit.facts import Source
from ecosystem.audit.judging.history import History, Observed
from ecosystem.audit.report import SKEW_MS, Rules
from schemas.messages import Payment
from schemas.payments import PaymentTotals


class Payments(NamedTuple):
    """The distinct payments of an order.

    `paid` is what they come to. `last_ms` is when the last one of those in the currency of orders came, 0 if there is
    none. `steady` says that none took anything back: else the order may have been paid for a while, or not yet when it
    mattered. `whole` says that no payment may have been removed from the topic.
    """

    paid: PaymentTotals
    last_ms: int
    steady: bool
    whole: bool


def payments_of(order: History, rules: Rules) -> Payments:
    """Reads them. Of one id the first one counts; all of an id are in one partition, in their order."""
    first: dict[str, Observed[Payment]] = {seen.message.id: seen for seen in reversed(order.of(Source.PAYMENTS))}
    paid, last_ms, steady = PaymentTotals(), 0, True
    for seen in reversed(first.values()):
        paid = paid.plus(seen.message, rules.currency)
        if seen.message.ccy == rules.currency:
            last_ms = max(last_ms, seen.fact.time_ms)
            steady &= seen.message.amount >= 0
    return Payments(paid, last_ms, steady, rules.complete(Source.PAYMENTS, SKEW_MS))
