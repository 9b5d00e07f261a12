"""When an order is paid: the one definition, for every service.

An order is paid when its distinct payments in the currency of orders (`CURRENCY`) sum to its value or more. Payments
are distinct by order and id: the first payment of an id counts, a later one of the same id never does, whatever its
content. A negative amount is a refund. A payment in another currency does not count; it is stored and shown.
"""

from decimal import Decimal
from hashlib import blake2b

from pydantic import Field

from schemas.messages import Payment
from schemas.wire import Message

OTHER_CURRENCY = "payment in another currency"
"""Counted event: a payment in another currency than orders. It pays nothing."""
PAYMENT_DIFFERS = "payment differs"
"""Counted event: a payment repeated under its id with other content. The first one counts."""

CURRENCIES_SHOWN = 20
"""Maximum number of currencies summed per order.

Payments in further currencies are only counted, to bound the size of the row.
"""


class CountedPayment(Message):
    """Row of a payment that is included in its order's totals: its number, from 1, and its content."""

    number: int
    ccy: str
    amount: Decimal

    def differs(self, payment: Payment) -> bool:
        """Whether a payment of the same id has other content."""
        return (self.ccy, self.amount) != (payment.ccy, payment.amount)


class PaymentTotals(Message):
    """Totals of the payments for an order. Bounded in size, however many payments there are.

    `sums` maps currencies to exact sums. `counted` and `ignored` are the numbers of payments in the currency of orders
    and in others. `recent` is read only: earlier versions, at least once, kept hashes of the latest payment ids there,
    because totals and rows of payments could not become durable together.
    """

    sums: dict[str, Decimal] = Field(default_factory=dict)
    counted: int = 0
    ignored: int = 0
    recent: tuple[str, ...] = ()

    def sum(self, currency: str) -> Decimal:
        """Sum of the payments in a currency."""
        return self.sums.get(currency, Decimal())

    def covers(self, value: Decimal, currency: str) -> bool:
        """Whether an order of this value is paid."""
        return self.sum(currency) >= value

    def others(self, currency: str) -> dict[str, Decimal]:
        """Sums in currencies other than that of orders. They pay nothing."""
        return {ccy: amount for ccy, amount in sorted(self.sums.items()) if ccy != currency}

    def includes(self, payment_id: str, row: CountedPayment | None) -> bool:
        """Whether a payment is included in the totals, given its row.

        In totals of earlier versions the row alone does not prove it for the `recent` payments.
        """
        total = self.counted + self.ignored
        return _hash(payment_id) in self.recent or (row is not None and row.number <= total - len(self.recent))

    def plus(self, payment: Payment, currency: str) -> "PaymentTotals":
        """Returns the totals with one more payment."""
        counts = payment.ccy == currency
        sums = self.sums
        if counts or payment.ccy in sums or len(sums) < CURRENCIES_SHOWN:
            sums = {**sums, payment.ccy: self.sum(payment.ccy) + payment.amount}
        return PaymentTotals(
            sums=sums,
            counted=self.counted + counts,
            ignored=self.ignored + (not counts),
        )

    def row(self, payment: Payment) -> CountedPayment:
        """Row of the payment added last."""
        return CountedPayment(number=self.counted + self.ignored, ccy=payment.ccy, amount=payment.amount)


def payment_key(order_id: str, payment_id: str) -> str:
    """Key of a payment's row, unique for every pair of ids: the length prefix separates them."""
    return f"{len(order_id)}/{order_id}/{payment_id}"


def _hash(payment_id: str) -> str:
    return blake2b(payment_id.encode(errors="surrogatepass"), digest_size=8).hexdigest()
