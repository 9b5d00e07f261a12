"""When an order is paid. The one definition, for all services that ask.

An order is paid when its distinct payments in the currency of orders (`CURRENCY`) come to its value or more. A payment
is known by its id and its order: the first one of an id counts, one that comes again does not, whatever it says. A
negative amount takes back. A payment in another currency pays nothing; it is kept and shown.
"""

from decimal import Decimal
from hashlib import blake2b

from pydantic import Field

from schemas.messages import Payment
from schemas.wire import Message

CURRENCIES_SHOWN = 20
"""Currencies whose sums an order keeps. Payments in further ones are only counted: a row must not grow with them."""

RECENT = 50
"""At least once: payments of one order whose rows a crash may leave behind or ahead of their sum, in one batch."""


class Counted(Message):
    """Row of a payment that is part of its order's sums: which one it was, counted from 1, and what it said."""

    number: int
    ccy: str
    amount: Decimal

    def differs(self, payment: Payment) -> bool:
        """Whether a payment says something else under the same id."""
        return (self.ccy, self.amount) != (payment.ccy, payment.amount)


class Paid(Message):
    """What has been paid for an order. Of a bounded size, however many payments there are.

    `sums` maps currencies to sums, exact to the last digit. `counted` and `ignored` are the numbers of payments in the
    currency of orders and in others. `recent` are marks of the latest ones, where a sum and the rows of its payments
    may not become durable together.
    """

    sums: dict[str, Decimal] = Field(default_factory=dict)
    counted: int = 0
    ignored: int = 0
    recent: tuple[str, ...] = ()

    def sum(self, currency: str) -> Decimal:
        """What was paid in a currency."""
        return self.sums.get(currency, Decimal())

    def covers(self, value: Decimal, currency: str) -> bool:
        """Whether an order of this value is paid."""
        return self.sum(currency) >= value

    def others(self, currency: str) -> dict[str, Decimal]:
        """What was paid in other currencies than that of orders, and pays nothing."""
        return {ccy: amount for ccy, amount in sorted(self.sums.items()) if ccy != currency}

    def includes(self, payment_id: str, row: Counted | None) -> bool:
        """Whether a payment is part of the sums, given its row. A row alone proves nothing for the latest ones."""
        total = self.counted + self.ignored
        return _mark(payment_id) in self.recent or (row is not None and row.number <= total - len(self.recent))

    def plus(self, payment: Payment, currency: str, *, repeats: bool = False) -> "Paid":
        """With one more payment. `repeats`: its row may become durable without this, or this without its row."""
        counts = payment.ccy == currency
        sums = self.sums
        if counts or payment.ccy in sums or len(sums) < CURRENCIES_SHOWN:
            sums = {**sums, payment.ccy: self.sum(payment.ccy) + payment.amount}
        return Paid(
            sums=sums,
            counted=self.counted + counts,
            ignored=self.ignored + (not counts),
            recent=(*self.recent, _mark(payment.id))[-RECENT:] if repeats else (),
        )

    def row(self, payment: Payment) -> Counted:
        """The row of the payment that was added last."""
        return Counted(number=self.counted + self.ignored, ccy=payment.ccy, amount=payment.amount)


def payment_key(order_id: str, payment_id: str) -> str:
    """The key of a payment's row: no two payments share one, whatever their ids look like."""
    return f"{len(order_id)}/{order_id}/{payment_id}"


def _mark(payment_id: str) -> str:
    return blake2b(payment_id.encode(errors="surrogatepass"), digest_size=8).hexdigest()
