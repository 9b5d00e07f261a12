"""Webhooks: bodies of `/v1/webhooks`, and the events that are delivered to subscribers."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from schemas.identifiers import Code
from schemas.messages import Order, ProductEvent
from schemas.wire import Message, example

EVENT_VERSION: Literal[1] = 1
"""Version of the payloads. It changes with a field that is removed or means something else, not with a new field."""
MAX_URL = 2048
_URL = r"^https?://[^\s/?#@\\]+(?:[/?][^\s#\\]*)?$"


class EventType(StrEnum):
    """Kinds of events that can be subscribed to."""

    ORDER_VALIDATED = "order.validated"
    ORDER_FAILED = "order.failed"
    ORDER_SHIPPED = "order.shipped"
    ORDER_CANCELLED = "order.cancelled"
    PRODUCT_CHANGED = "product.changed"
    DEAD_LETTER_WRITTEN = "dead_letter.written"


TEST = "webhook.test"
"""Type of a test event, which needs no subscription."""


def _each_once(events: tuple[EventType, ...]) -> tuple[EventType, ...]:
    return tuple(dict.fromkeys(events))


def _absolute(url: str) -> str:
    if not re.fullmatch(_URL, url):
        raise ValueError("must be an absolute http or https URL without user, password, fragment and spaces")
    return url


WebhookUrl = Annotated[
    str,
    Field(max_length=MAX_URL),
    AfterValidator(_absolute),
    WithJsonSchema({"type": "string", "format": "uri", "pattern": _URL, "maxLength": MAX_URL}),
]
"""An absolute http or https URL without user, password and fragment."""


class NewWebhook(Message):
    """Body of `POST /v1/webhooks`."""

    model_config = example(url="https://shop.example.com/hooks", events=["order.validated", "order.shipped"])

    url: WebhookUrl = Field(description="Where events are delivered. https, unless the operator allows http")
    events: Annotated[tuple[EventType, ...], Field(min_length=1, max_length=20), AfterValidator(_each_once)]
    description: str | None = Field(default=None, max_length=200)


class Webhook(Message):
    """A subscription: a URL, and the kinds of events that are delivered to it.

    `secretVersion` counts the secrets of the subscription from 1. Earlier ones are valid until `previousSecretUntil`.
    """

    id: Code
    url: str
    events: tuple[str, ...]
    description: str | None = None
    created_at: datetime
    secret_version: int
    previous_secret_until: datetime | None = None


class WebhookWithSecret(Webhook):
    """A subscription with its new secret, which is shown this once."""

    secret: str = Field(description="Key of the signatures, in the form of Standard Webhooks: `whsec_…`")


class Webhooks(Message):
    """Body of `GET /v1/webhooks`: all subscriptions, oldest first."""

    webhooks: tuple[Webhook, ...] = ()


class TestDelivery(Message):
    """Answer of `POST /v1/webhooks/{id}/test`: the id of the event, as in the header `webhook-id`."""

    __test__ = False  # no test, whatever its name begins with

    webhook_id: str


class DeliveryAttempt(Message):
    """One attempt to deliver an event."""

    at: datetime
    webhook_id: str = Field(description="Id of the event: the same in each attempt")
    type: str
    delivered: bool = Field(description="Whether the receiver answered 2xx")
    status: int | None = Field(default=None, description="Status of the answer; absent without an answer")
    error: str | None = Field(default=None, description="Why there is no answer")
    duration_ms: int


class Deliveries(Message):
    """Body of `GET /v1/webhooks/{id}/deliveries`: the latest attempts, newest first."""

    attempts: tuple[DeliveryAttempt, ...] = ()


class DeadLetterNotice(Message):
    """A message that could not be processed. `orders dead-letters show TOPIC PARTITION@OFFSET` says why.

    Neither the message nor the reason is included: both may hold personal data.
    """

    topic: str = Field(description="Topic of dead letters, without the prefix of the deployment")
    partition: int
    offset: int
    service: str | None = Field(default=None, description="Service that could not process it")


class TestNotice(Message):
    """The content of a test event."""

    __test__ = False

    text: str = "It works."


class WebhookEvent(Message):
    """What is delivered: type, version, time and content of an event."""

    type: str
    version: Literal[1] = EVENT_VERSION
    timestamp: datetime = Field(description="When it happened")


class OrderEvent(WebhookEvent):
    """The order was validated, has failed, was shipped or was cancelled: see its state."""

    data: Order


class ProductChanged(WebhookEvent):
    """A product was created, changed or withdrawn."""

    data: ProductEvent


class DeadLetterWritten(WebhookEvent):
    """A message could not be processed."""

    data: DeadLetterNotice


class TestEvent(WebhookEvent):
    """Sent on request, to try a receiver."""

    __test__ = False

    data: TestNotice = TestNotice()


EVENTS: dict[str, type[WebhookEvent]] = {
    EventType.ORDER_VALIDATED: OrderEvent,
    EventType.ORDER_FAILED: OrderEvent,
    EventType.ORDER_SHIPPED: OrderEvent,
    EventType.ORDER_CANCELLED: OrderEvent,
    EventType.PRODUCT_CHANGED: ProductChanged,
    EventType.DEAD_LETTER_WRITTEN: DeadLetterWritten,
    TEST: TestEvent,
}
"""Model of each type."""
