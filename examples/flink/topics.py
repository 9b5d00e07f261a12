"""Topics of this example, beside those of the catalogue: bookings of the warehouse, and results of Flink."""

from typing import Annotated

from pydantic import Field

from schemas.messages import OrderEnriched
from schemas.topics import FOR_EVER, WEEK, Topic
from schemas.wire import Int64, Message, Quantity, Total


class Booking(Message):
    """A delivery, or a correction of either sign: a change of the stock of a product, in pieces.

    `id` identifies repetitions. A shipment is booked as a negative correction when it leaves the warehouse.
    """

    id: str
    product: Annotated[str, Field(max_length=256)]
    quantity: Quantity


class PaidOrder(Message):
    """A validated order that is paid in full, with its customer: what the e-mail service confirms by an e-mail."""

    id: str
    customer_id: Int64
    customer_level: str
    first_name: str
    last_name: str
    email: str
    product: str
    value: Total
    paid: Total
    payments: int


WAREHOUSE_DELIVERIES = Topic("warehouse-deliveries", Booking, lambda b: b.product, "warehouse", FOR_EVER)
ENRICHED_BY_FLINK = Topic("flink-orders-enriched", OrderEnriched, lambda o: o.id, "flink", WEEK)
PAID_BY_FLINK = Topic("flink-orders-paid", PaidOrder, lambda o: o.id, "flink", WEEK)

TOPICS = (WAREHOUSE_DELIVERIES, ENRICHED_BY_FLINK, PAID_BY_FLINK)
