"""What the email service holds: the join of each order, its customers, and the letters that wait for one."""

from datetime import datetime
from enum import StrEnum

from runtime.memory import Memory, Remembered, Seen
from runtime.service import Table
from schemas.messages import Customer, Order, Payment
from schemas.wire import Message


class Kind(StrEnum):
    """What a letter tells. There is one of each at most for an order."""

    VALIDATED = "validated"
    FAILED = "failed"
    SHIPPED = "shipped"


class Letter(Message):
    """A letter that is due: what it tells of which order, and the payment if it tells of one.

    Without a kind there is nothing to tell: the order is only to be enriched with its customer.
    """

    kind: Kind | None = None
    order: Order
    payment: Payment | None = None


class Addressed(Message):
    """A letter and whom it goes to."""

    letter: Letter
    customer: Customer


class Join(Remembered):
    """Order and payment, whichever has come, when each did, and which letters followed."""

    order: Order | None = None
    validated_at: datetime | None = None
    payment: Payment | None = None
    paid_at: datetime | None = None
    told: tuple[Kind, ...] = ()


class Waiting(Message):
    """Letters to a customer who is not known yet, each with the time it waits until."""

    letters: tuple[Letter, ...]
    until: tuple[datetime, ...]


JOINS = Memory("email-joins", Join)
CUSTOMERS = Table("email-customers", Customer)
WAITING = Table("email-waiting", Waiting)
SENT = Seen("email-sent")
"""At least once alone: which letters were asked to be sent, by order and kind."""
