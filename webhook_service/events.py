"""Makes events of what happened. Pure.

The id of an event derives from what happened, so that a repeated message has the id of the first one.
"""

import uuid
from dataclasses import dataclass
from datetime import datetime

from schemas.messages import Order, OrderState, ProductEvent
from schemas.webhooks import (
    TEST,
    DeadLetterNotice,
    DeadLetterWritten,
    EventType,
    OrderEvent,
    ProductChanged,
    TestEvent,
    WebhookEvent,
)
from webhook_service.state import SUBSCRIPTIONS_KEY

_NAMESPACE = uuid.UUID("0c1f7d52-6a5e-5c0b-9f0e-7a2f3f1f6b52")

ORDER_TYPES = {
    OrderState.VALIDATED: EventType.ORDER_VALIDATED,
    OrderState.FAILED: EventType.ORDER_FAILED,
    OrderState.SHIPPED: EventType.ORDER_SHIPPED,
    OrderState.CANCELLED: EventType.ORDER_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Occurrence:
    """An event, and where it belongs.

    Arguments:
        id: identifies repetitions of the event.
        event: what is delivered.
        partition_key: a key of the partition in which it is fanned out.
        sequence: events of one sequence are delivered in order.
    """

    id: str
    event: WebhookEvent
    partition_key: str
    sequence: str


def webhook_id(*parts: str) -> str:
    """Id of the event that these parts identify."""
    return f"evt_{uuid.uuid5(_NAMESPACE, '/'.join(parts)).hex}"


def order_event(kind: EventType, order: Order, at: datetime) -> Occurrence:
    """An order was decided, shipped or cancelled."""
    event = OrderEvent(type=kind, timestamp=at, data=order)
    return Occurrence(webhook_id(kind, str(order.attempt_number), order.id), event, order.id, f"order/{order.id}")


def product_event(change: ProductEvent) -> Occurrence:
    """A product was changed."""
    kind = EventType.PRODUCT_CHANGED
    event = ProductChanged(type=kind, timestamp=change.at, data=change)
    return Occurrence(webhook_id(kind, str(change.version), change.code), event, change.code, f"product/{change.code}")


def dead_letter_event(notice: DeadLetterNotice, at: datetime) -> Occurrence:
    """A dead letter was written."""
    kind = EventType.DEAD_LETTER_WRITTEN
    event = DeadLetterWritten(type=kind, timestamp=at, data=notice)
    id_ = webhook_id(kind, notice.topic, str(notice.partition), str(notice.offset))
    return Occurrence(id_, event, SUBSCRIPTIONS_KEY, f"dead-letter/{notice.topic}")


def trial_event(id_: str, at: datetime) -> Occurrence:
    """A test was asked for."""
    return Occurrence(id_, TestEvent(type=TEST, timestamp=at), SUBSCRIPTIONS_KEY, f"test/{id_}")
