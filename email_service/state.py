"""What the email service holds: the join of each order, its customers, and the letters that wait for one."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from pydantic import Field

from runtime.model.service import Table
from runtime.state.queues import Queue
from runtime.state.ttl_table import Deduplication, ExpiringRow, TtlTable
from schemas.messages import Customer, Order, Payment
from schemas.payments import Counted, Paid
from schemas.wire import Message


class EmailKind(StrEnum):
    """What a letter tells. There is one of each at most for an order."""

    VALIDATED = "validated"
    FAILED = "failed"
    SHIPPED = "shipped"


class Email(Message):
    """A letter that is due: what it tells of which order, since when, and what was paid if it tells of that.

    Without a kind there is nothing to tell: the order is only to be enriched with its customer. `payment` is the one
    that made the order paid, `paid` the sum and `payments` the number of all of them. Letters of earlier versions have
    neither `at` nor `paid`.
    """

    kind: EmailKind | None = None
    order: Order
    at: datetime | None = None
    payment: Payment | None = None
    paid: Decimal | None = None
    payments: int = 0


class AddressedEmail(Message):
    """A letter and whom it goes to."""

    letter: Email
    customer: Customer


class Join(ExpiringRow):
    """An order and what was paid for it, whichever came first, when each did, and which letters followed.

    `payment` is the one that made the order paid; until then the last one that counts. `since` is when the row was
    made. Rows of earlier versions have neither `since` nor `paid`, and of all payments only the last one.
    """

    order: Order | None = None
    validated_at: datetime | None = None
    payment: Payment | None = None
    paid: Paid = Field(default_factory=Paid)
    failed: bool = False
    since: datetime | None = None
    told: tuple[EmailKind, ...] = ()

    @property
    def open(self) -> bool:
        """Whether its order may still be confirmed."""
        known = self.validated_at is not None or self.payment is not None
        return known and not self.failed and not {EmailKind.VALIDATED, EmailKind.FAILED} & {*self.told}


class PaymentRow(ExpiringRow, Counted):
    """A payment that is part of the sums of its order's join."""

    order_id: str


class Queued(Message):
    """A letter that waits for its customer, until when."""

    letter: Email
    until: datetime


class Waiting(Message):
    """Letters to a customer who is not known yet, as earlier versions kept them: all in one row."""

    letters: tuple[Email, ...]
    until: tuple[datetime, ...]


JOINS = TtlTable("email-joins", Join)
PAYMENT_ROWS = TtlTable("email-payments", PaymentRow)
CUSTOMERS = Table("email-customers", Customer)
QUEUE = Queue("email-queue", Queued)
"""By customer id."""
WAITING = Table("email-waiting", Waiting)
"""Read, and moved to the queue when its customer is heard of; never written."""
SENT = Deduplication("email-sent")
"""At least once alone: which letters were asked to be sent, by order and kind."""
