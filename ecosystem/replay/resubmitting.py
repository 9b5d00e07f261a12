"""Makes records of the history ready to be sent again. Pure."""

from collections.abc import Iterable, Mapping
from contextlib import suppress

from ecosystem.replay.database import KnownOrder, KnownRecord
from ecosystem.replay.records import Place, Resubmission, original_headers
from history_service.stages import Stage
from schemas.messages import Cancellation, Order
from schemas.topics import CANCELLATIONS, ORDERS

SUBJECTS: Mapping[str, str] = {
    Stage.STOCK: "product",
    Stage.PRODUCT: "product",
    Stage.PRODUCT_ALERT: "product",
    Stage.CUSTOMER: "customer",
}
"""What the key of a record about no order names."""


def place_of(record: KnownRecord) -> Place:
    """Where a record lies."""
    return Place(record.stored.topic, record.stored.partition, record.stored.offset)


def resubmission(record: KnownRecord, order: KnownOrder | None) -> Resubmission:
    """A record as it is sent again. One about no order bears on the product or customer of its key."""
    stored = record.stored
    product, customer = (order.product, order.customer_id) if order else _subject(stored.stage, stored.key)
    return Resubmission(
        place_of(record),
        stored.stage,
        stored.topic,
        stored.partition,
        stored.key,
        stored.value,
        original_headers(stored.header_pairs),
        record.timestamp_ms,
        order.id if order else None,
        product,
        customer,
    )


def cancelled_by_client(
    record: KnownRecord, order: KnownOrder, asked: Iterable[tuple[str, str] | None]
) -> Resubmission | None:
    """The request of a client that the CANCELLED order shows; `None` if a record has the request.

    Arguments:
        record: the CANCELLED order.
        order: what is known of it.
        asked: order and reason of each record in `cancellations`.
    """
    if record.stored.topic != ORDERS.name or record.stored.value is None:
        return None
    with suppress(ValueError):
        said = Order.from_json(record.stored.value)
        reason = (said.reasons or ("",))[0]
        if (said.id, reason) not in asked:
            message = Cancellation(order_id=said.id, reason=reason)
            same = resubmission(record, order)._replace(stage=Stage.CANCELLATION, topic=CANCELLATIONS.name)
            return same._replace(key=said.id.encode(), value=message.to_json())
    return None


def requested_cancellation(record: KnownRecord) -> tuple[str, str] | None:
    """Order and reason of a record in `cancellations`; `None` if it cannot be read."""
    with suppress(ValueError):
        said = Cancellation.from_json(record.stored.value or b"")
        return said.order_id, said.reason
    return None


def _subject(stage: str, key: bytes | None) -> tuple[str | None, int | None]:
    subject, text = SUBJECTS.get(stage), (key or b"").decode(errors="replace")
    if subject == "customer":
        return None, int(text) if text.removeprefix("-").isdigit() and len(text) < 20 else None
    return (text if subject == "product" else None), None
