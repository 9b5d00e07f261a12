"""What the fraud validator holds: the sessions of each customer, and for a while its verdict on each order."""

from runtime.model.service import Table
from runtime.state.ttl_table import ExpiringRow, TtlTable
from schemas.wire import Message
from validators.fraud.sessions import Session


class Customer(Message):
    """The latest sessions of a customer by time, and the order that was judged last."""

    sessions: tuple[Session, ...] = ()
    last_order: str


class Judged(ExpiringRow):
    """The verdict on an order: a PASS, unless there is a refusal."""

    customer: str
    refusal: str | None = None


CUSTOMERS = Table("fraud-customers", Customer)
JUDGED = TtlTable("fraud-judged", Judged)
