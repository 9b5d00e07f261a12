"""Formats a message as one readable line."""

import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from runtime.common.partitioning import partition_of
from runtime.model.records import Record
from schemas.messages import (
    Cancellation,
    CheckinRejected,
    Customer,
    Fulfilled,
    HomeCheckin,
    Order,
    OrderEnriched,
    OrderValidation,
    Payment,
    ProductAlert,
    ProductEvent,
    Refund,
    RequiredChecks,
    StockLevel,
)
from schemas.money import format_amount
from schemas.topics import CATALOGUE, DEAD_LETTERS

_FORMATS_WITH_PRICE: dict[type, Callable[[Any, str], str]] = {
    Order: lambda o, ccy: (
        f"{o.state} customer {o.customer_id}: {o.quantity} × {o.product} at {format_amount(o.price, ccy)}"
        f"{_reasons(*o.reasons or ())}"
    ),
    Payment: lambda p, _: f"{format_amount(p.amount, p.ccy)} for order {p.order_id}",
    ProductEvent: lambda p, ccy: f"{p.kind} version {p.version}: {p.name} at {format_amount(p.price, ccy)}",
}
_FORMATS: dict[type, Callable[[Any], str]] = {
    OrderValidation: lambda v: f"{v.check_type} {v.validation_result}{_reasons(v.reason)}",
    StockLevel: lambda s: f"{s.count} pieces",
    Customer: lambda c: f"{c.first_name} {c.last_name} <{c.email}>, {c.level}",
    OrderEnriched: lambda o: f"customer {o.customer_id}, {o.customer_level}",
    HomeCheckin: lambda c: f"{c.event_type} {c.event_id}: {c.staff_code} at line {c.internet_no}, {c.job_status}",
    CheckinRejected: lambda c: f"REJECTED check-in {c.event_id}{_reasons(c.reason)}",
    Fulfilled: lambda _: "FULFILLED",
    Cancellation: lambda c: f"CANCELLATION {c.reason}",
    Refund: lambda r: f"REFUND {r.amount} {r.ccy}",
    RequiredChecks: lambda r: "; ".join(f"from {s.since:%Y-%m-%d %H:%M:%S}Z: {', '.join(s.checks)}" for s in r.sets),
    ProductAlert: lambda a: f"{a.kind} in version {a.version} ({a.reason})",
}
_MODELS = {topic.name: topic.model for topic in CATALOGUE}
_COLOURS = ("cyan", "green", "yellow", "blue", "magenta", "bright_cyan", "bright_green", "bright_yellow")
_BAD, _GOOD = ("FAILED", "CANCELLED", "REJECTED", "FAIL", "ERROR"), ("VALIDATED", "SHIPPED", "FULFILLED", "PASS")
_SIGNALS = dict.fromkeys(_BAD, "red") | dict.fromkeys(_GOOD, "green")


def line(record: Record, partitions: int | None = None, currency: str = "EUR") -> Text:
    """Formats time (UTC), topic, key, content, partition and offset.

    Arguments:
        record: the message.
        partitions: number of partitions of the deployment; if given, misplaced records are marked.
        currency: currency of prices.
    """
    at = moment(record.timestamp_ms)
    key = "-" if record.key is None else printable(record.key.decode(errors="replace"))
    text = Text(f"{record.timestamp_ms} ms " if at is None else f"{at:%H:%M:%S}.{at.microsecond // 1000:03} ", "dim")
    text.append(f"{record.topic:<20} ", "red" if record.topic.endswith(DEAD_LETTERS) else _colour(record.topic))
    text.append(f"{key}  ")
    body = Text(content(record, currency), "" if record.unreadable is None else "red")
    for word, colour in _SIGNALS.items():
        body.highlight_regex(rf"\b{word}\b", colour)
    text.append_text(body).append(f"  {record.partition}@{record.offset}", "dim")
    if partitions is not None and record.unreadable is None and record.topic in _MODELS and record.key is not None:
        belongs = partition_of(record.key, partitions)
        if belongs != record.partition:
            text.append(f"  misplaced: belongs in partition {belongs}", "red")
    return text


def moment(ms: int) -> datetime | None:
    """Converts a timestamp to UTC; `None` if it is outside of the calendar."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def content(record: Record, currency: str = "EUR") -> str:
    """Formats the content of a message on one line; a message of no model of the catalogue as JSON, or unchanged."""
    if record.unreadable is not None:
        return printable(f"unreadable: {record.unreadable}")
    if record.value is None:
        return "(deleted)"
    if record.topic.endswith(DEAD_LETTERS):
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        return printable(f"{headers.get('service')}: {headers.get('error')} | {_raw(record.value)}")
    try:
        message = _MODELS[record.topic].from_json(record.value)
        with_price = _FORMATS_WITH_PRICE.get(type(message))
        return printable(with_price(message, currency) if with_price else _FORMATS[type(message)](message))
    except (KeyError, ValueError):
        return printable(_raw(record.value))


def _raw(value: bytes) -> str:
    text = value.decode(errors="replace")
    try:
        return text if text.isprintable() else json.dumps(json.loads(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _reasons(*reasons: str | None) -> str:
    text = "; ".join(filter(None, reasons))
    return f" ({text})" if text else ""


def printable(text: str) -> str:
    """Escapes line breaks and control characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def bytes_text(raw: bytes) -> str:
    """Returns printable text as it is, anything else in hexadecimal."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"hex {raw.hex(' ')}"
    return text if all(c.isprintable() or c in "\n\t" for c in text) else f"hex {raw.hex(' ')}"


def _colour(topic: str) -> str:
    return _COLOURS[zlib.crc32(topic.encode()) % len(_COLOURS)]  # the same colour in every run
