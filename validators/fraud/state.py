"""State of the fraud validator: sessions per customer, and past verdicts with a TTL."""

from runtime import validator
from runtime.model.service import Table
from runtime.state.sessions import Session
from runtime.state.ttl_table import TtlTable
from schemas.wire import Message


class Customer(Message):
    """Latest sessions of a customer by time, and the order checked last."""

    sessions: tuple[Session, ...] = ()
    last_order: str


class VerdictRow(validator.VerdictRow):
    """Past verdict on an order of a customer."""

    customer: str


CUSTOMERS = Table("fraud-customers", Customer)
VERDICTS = TtlTable("fraud-judged", VerdictRow)
