"""What the fulfilment service holds: of each order what has happened, its payments, and check-ins that wait for it."""

from decimal import Decimal

from pydantic import Field

from runtime.model.service import Table
from runtime.state.queues import Queue
from runtime.state.ttl_table import Deduplication
from schemas.messages import CheckinRejected, HomeCheckin, OrderState
from schemas.payments import CountedPayment, PaymentTotals
from schemas.wire import Message, Money


class Progress(Message):
    """How far an order has come, with its `value` to the last digit. Of a bounded size, whatever comes for the order.

    `received` is what was paid. `waiting` counts the check-ins that nobody has answered for yet: of an order that is
    still unknown, or not decided. In rows of earlier versions the payments themselves are in `paid`, by id, and
    check-ins in `check_ins` and `rejected`; they are moved when the order is heard of.
    """

    state: OrderState | None = None
    value: Decimal | None = None
    received: PaymentTotals = Field(default_factory=PaymentTotals)
    paid: dict[str, Money] = Field(default_factory=dict)
    checked_in: bool = False
    waiting: int = 0
    check_ins: tuple[HomeCheckin, ...] = ()
    rejected: tuple[CheckinRejected, ...] = ()
    fulfilled: bool = False

    def sum(self, currency: str) -> Decimal:
        """What was paid in the currency of orders."""
        return self.received.sum(currency) + sum(self.paid.values(), Decimal())


class WaitingCheckin(Message):
    """A check-in that waits for its order; with a reason, one that was rejected for it and may have to be again."""

    event_id: str
    reason: str | None = None


PROGRESS = Table("fulfilment-progress", Progress)
PAYMENTS_COUNTED = Table("fulfilment-payments", CountedPayment)
"""By order and payment: one that comes again counts once. Kept as long as the rows of orders: for ever."""
CHECK_INS = Queue("fulfilment-check-ins", WaitingCheckin)
"""By order."""
SEEN_CHECK_INS = Deduplication("fulfilment-seen-check-ins")
