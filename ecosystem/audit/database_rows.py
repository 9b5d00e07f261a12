"""What the audit takes from a database, as it keeps it until it is judged."""

from datetime import datetime

from schemas.api import CheckinState, ProductState
from schemas.wire import Message, Money


class CheckinRow(Message):
    """A row of the check-in service. `published`: its message has been acknowledged by Kafka."""

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
    """A row of the product service. `published`: none of its changes waits in the outbox."""

    code: str
    name: str
    price: Money
    version: int
    state: ProductState
    published: bool
