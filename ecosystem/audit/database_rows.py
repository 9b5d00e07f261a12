"""Rows of the services' databases, as the audit reads them."""

from datetime import datetime

from schemas.api import CheckinState, ProductState
from schemas.wire import Message, Money


class CheckinRow(Message):
    """A row of the check-in service. `published`: Kafka has acknowledged its message."""

    event_id: str
    order_no: str
    internet_no: str
    staff_code: str
    job_status: str
    checkin_latitude: float
    checkin_longitude: float
    checkin_date: datetime
    status: CheckinState
    published: bool


class ProductRow(Message):
    """A row of the product service. `published`: the outbox has no message of it."""

    code: str
    name: str
    price: Money
    version: int
    state: ProductState
    published: bool
