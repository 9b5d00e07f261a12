"""State of the fulfilment service: progress of each order, its payments, and queued check-ins."""

from decimal import Decimal

from pydantic import Field

from runtime.model.service import Table
from runtime.state.queues import Queue
from runtime.state.ttl_table import Deduplication
from schemas.messages import CheckinRejected, HomeCheckin, OrderState
from schemas.payments import CountedPayment, PaymentTotals
from schemas.wire import Message, Money


class Progress(Message):
    """Progress of an order. Bounded in size, whatever arrives for the order.

    `attempt` is that of the order in `state`, absent for the first. `received` are the totals of its payments.
    `waiting` counts check-ins that are not resolved, because the order is unknown or undecided. `trace` is that of the
    order. Rows of earlier versions hold payments in `paid`, by id, and check-ins in `check_ins` and `rejected`; these
    are moved when the order is next processed.
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
    attempt: int | None = None
    trace: dict[str, str] | None = None

    def sum(self, currency: str) -> Decimal:
        """Sum of the payments in a currency."""
        return self.received.sum(currency) + sum(self.paid.values(), Decimal())

    def paid_in(self, currency: str) -> bool:
        """Whether the order is paid in full in a currency."""
        return self.value is not None and self.sum(currency) >= self.value


class WaitingCheckin(Message):
    """A queued check-in. Only in rows of earlier versions it may have been rejected for a `reason`."""

    event_id: str
    reason: str | None = None


PROGRESS = Table("fulfilment-progress", Progress)
PAYMENTS_COUNTED = Table("fulfilment-payments", CountedPayment)
"""By order and payment, for deduplication. Kept for ever, like the rows of orders."""
CHECK_INS = Queue("fulfilment-check-ins", WaitingCheckin)
"""By order."""
SEEN_CHECK_INS = Deduplication("fulfilment-seen-check-ins")
