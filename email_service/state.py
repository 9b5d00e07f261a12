"""State of the email service: joins, payments, customers, and e-mails that wait for a customer.

Aliases of fields are their JSON names in rows that earlier versions have stored.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from pydantic import Field

from runtime.model.service import Table
from runtime.state.queues import Queue
from runtime.state.ttl_table import Deduplication, ExpiringRow, TtlTable
from schemas.messages import Customer, Order, Payment
from schemas.payments import CountedPayment, PaymentTotals
from schemas.wire import Message


class EmailKind(StrEnum):
    """Kind of an e-mail. An order gets at most one of each, for each attempt to decide it."""

    VALIDATED = "validated"
    FAILED = "failed"
    SHIPPED = "shipped"
    CANCELLED = "cancelled"


class Email(Message):
    """An e-mail about an order, not addressed yet. Message of `EMAILS_BY_CUSTOMER`.

    Without a kind no e-mail is sent: the order is only enriched with its customer. `at` is when the e-mail became due.
    A VALIDATED e-mail states `paid`, the sum of its `payments`, and `payment`, the one that completed it. E-mails of
    earlier versions have neither `at` nor `paid`.
    """

    kind: EmailKind | None = None
    order: Order
    at: datetime | None = None
    payment: Payment | None = None
    paid: Decimal | None = None
    payments: int = 0


class AddressedEmail(Message):
    """An e-mail with its recipient. Payload of the side effect."""

    email: Email = Field(alias="letter")
    customer: Customer


class Join(ExpiringRow):
    """An order joined with its payments, whichever arrived first, and the e-mails issued for it.

    `attempt` is that of the decided order, absent for the first. `payment` is the one that completed the sum, until
    then the latest that counts. `since` is when the row was created, `trace` that of the validated order. Rows of
    earlier versions have neither `since` nor `paid`, and only the latest payment.
    """

    order: Order | None = None
    validated_at: datetime | None = None
    payment: Payment | None = None
    paid: PaymentTotals = Field(default_factory=PaymentTotals)
    failed: bool = False
    cancelled: bool = False
    since: datetime | None = None
    issued: tuple[EmailKind, ...] = Field(default=(), alias="told")
    attempt: int | None = None
    trace: dict[str, str] | None = None

    @property
    def open(self) -> bool:
        """Whether the order may still be confirmed."""
        known = self.validated_at is not None or self.payment is not None
        ended = self.failed or self.cancelled or {EmailKind.VALIDATED, EmailKind.FAILED} & {*self.issued}
        return known and not ended


class PaymentRow(ExpiringRow, CountedPayment):
    """Row of a payment that is included in the totals of its order."""

    order_id: str


class QueuedEmail(Message):
    """An e-mail that waits for its customer, until when."""

    email: Email = Field(alias="letter")
    until: datetime


class LegacyQueue(Message):
    """All waiting e-mails to one customer in one row, as written by earlier versions."""

    emails: tuple[Email, ...] = Field(alias="letters")
    until: tuple[datetime, ...]


JOINS = TtlTable("email-joins", Join)
PAYMENT_ROWS = TtlTable("email-payments", PaymentRow)
CUSTOMERS = Table("email-customers", Customer)
QUEUE = Queue("email-queue", QueuedEmail)
"""By customer id."""
LEGACY_QUEUES = Table("email-waiting", LegacyQueue)
"""Only read: a queue is moved to `QUEUE` when its customer, or another e-mail to them, arrives."""
ENQUEUED = Deduplication("email-sent")
"""E-mails enqueued as side effects, by order and kind."""
