"""Spans as this project makes them, before an exporter turns them into those of OpenTelemetry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from runtime.model.traces import TraceContext
from schemas.messages import Order, OrderEnriched
from schemas.wire import Message

ORDER_ID = "faust_orders.order.id"
SERVICE = "faust_orders.service"
"""Attributes of ours. All others are of OpenTelemetry's semantic conventions."""

MAX_LINKS = 128
"""Links of a span: the limit of OpenTelemetry's SDKs. What a batch is of has a link back to the batch as well."""

Attribute = str | int | float | bool


class Kind(Enum):
    """Kinds of spans, by their names in OpenTelemetry."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"


@dataclass(slots=True, eq=False)
class Span:
    """A piece of work of a trace.

    Arguments:
        name: few different ones: no ids.
        context: its ids.
        parent: the span that led to it; `None` for the first one of a trace.
        start_ns: nanoseconds since 1970.
        end_ns: nanoseconds since 1970.
        service: whose work it is; `None`: that of the worker.
        links: spans of other traces that it concerns.
        error: type of the error, if it failed. No text, which may hold contents of messages.
    """

    name: str
    context: TraceContext
    parent: TraceContext | None
    start_ns: int
    end_ns: int = 0
    kind: Kind = Kind.INTERNAL
    service: str | None = None
    attributes: dict[str, Attribute] = field(default_factory=dict)
    links: list[TraceContext] = field(default_factory=list)
    error: str | None = None


Record = Callable[[Span], None]
"""Takes a finished span. Returns at once, whatever the collector does."""


def messaging(operation: str, destination: str) -> dict[str, Attribute]:
    """Attributes of an operation on a topic (opentelemetry.io/docs/specs/semconv/messaging/kafka)."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": destination,
    }


def order_id_of(message: object) -> str | None:
    """The order that a message is about; `None` if it is about none.

    >>> from schemas.messages import Payment
    >>> order_id_of(Payment(id="p-1", order_id="o-1", ccy="EUR", amount=5))
    'o-1'
    """
    if isinstance(message, (Order, OrderEnriched)):
        return message.id
    if not isinstance(message, Message):
        return None
    fields: Mapping[str, object] = message.__dict__
    own = fields.get("order_id") or fields.get("order_no")
    if isinstance(own, str):
        return own
    return next((found for value in fields.values() if (found := order_id_of(value)) is not None), None)
