"""Makes events of messages. Pure.

The id of an event derives from what happened, so that a repeated message has the id of the first one.
"""

import uuid
from datetime import datetime

from schemas.messages import Order, OrderState, ProductEvent
from schemas.webhooks import TEST, EventType, OrderEvent, ProductChanged, TestEvent, WebhookEvent

_NAMESPACE = uuid.UUID("0c1f7d52-6a5e-5c0b-9f0e-7a2f3f1f6b52")

ORDER_TYPES = {
    OrderState.VALIDATED: EventType.ORDER_VALIDATED,
    OrderState.FAILED: EventType.ORDER_FAILED,
    OrderState.SHIPPED: EventType.ORDER_SHIPPED,
    OrderState.CANCELLED: EventType.ORDER_CANCELLED,
}


def webhook_id(*parts: str) -> str:
    """Id of the event that these parts identify."""
    return f"evt_{uuid.uuid5(_NAMESPACE, '/'.join(parts)).hex}"


def order_event(kind: EventType, order: Order, at: datetime) -> WebhookEvent:
    """The event that an order was decided, shipped or cancelled."""
    return OrderEvent(type=kind, timestamp=at, data=order)


def product_event(change: ProductEvent) -> WebhookEvent:
    """The event of a change of a product."""
    return ProductChanged(type=EventType.PRODUCT_CHANGED, timestamp=change.at, data=change)


def test_event(at: datetime) -> WebhookEvent:
    """A test event."""
    return TestEvent(type=TEST, timestamp=at)
