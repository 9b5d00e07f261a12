"""A message as one line for people."""

import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from runtime.records import Record
from schemas.messages import (
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
    StockLevel,
)
from schemas.money import format_amount
from schemas.topics import CATALOGUE, DEAD_LETTERS

_PRICED: dict[type, Callable[[Any, str], str]] = {
    Order: lambda o, ccy: (
        f"{o.state} customer {o.customer_id}: {o.quantity} × {o.product} at {format_amount(o.price, ccy)}"
        f"{_why(*o.reasons or ())}"
    ),
    Payment: lambda p, _: f"{format_amount(p.amount, p.ccy)} for order {p.order_id}",
    ProductEvent: lambda p, ccy: f"{p.kind} version {p.version}: {p.name} at {format_amount(p.price, ccy)}",
}
_SAY: dict[type, Callable[[Any], str]] = {
    OrderValidation: lambda v: f"{v.check_type} {v.validation_result}{_why(v.reason)}",
    StockLevel: lambda s: f"{s.count} pieces",
    Customer: lambda c: f"{c.first_name} {c.last_name} <{c.email}>, {c.level}",
    OrderEnriched: lambda o: f"customer {o.customer_id}, {o.customer_level}",
    HomeCheckin: lambda c: f"{c.event_type} {c.event_id}: {c.staff_code} at line {c.internet_no}, {c.job_status}",
    CheckinRejected: lambda c: f"REJECTED check-in {c.event_id}{_why(c.reason)}",
    Fulfilled: lambda _: "FULFILLED",
    ProductAlert: lambda a: f"{a.kind} in version {a.version} ({a.reason})",
}
_MODELS = {topic.name: topic.model for topic in CATALOGUE}
_COLOURS = ("cyan", "green", "yellow", "blue", "magenta", "bright_cyan", "bright_green", "bright_yellow")
_BAD, _GOOD = ("FAILED", "REJECTED", "FAIL", "ERROR"), ("VALIDATED", "SHIPPED", "FULFILLED", "PASS")
_SIGNALS = dict.fromkeys(_BAD, "red") | dict.fromkeys(_GOOD, "green")


def line(record: Record, currency: str = "EUR") -> Text:
    """Time (UTC), topic, key, content, and where it stands. Prices are in `currency`."""
    at = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    key = "-" if record.key is None else _printable(record.key.decode(errors="replace"))
    text = Text(f"{at:%H:%M:%S}.{at.microsecond // 1000:03} ", "dim")
    text.append(f"{record.topic:<20} ", "red" if record.topic.endswith(DEAD_LETTERS) else _colour(record.topic))
    text.append(f"{key}  ")
    said = Text(content(record, currency))
    for word, colour in _SIGNALS.items():
        said.highlight_regex(rf"\b{word}\b", colour)
    return text.append_text(said).append(f"  {record.partition}@{record.offset}", "dim")


def content(record: Record, currency: str = "EUR") -> str:
    """What a message says, on one line; one of no model of the catalogue as its JSON, or as it stands."""
    if record.value is None:
        return "(deleted)"
    if record.topic.endswith(DEAD_LETTERS):
        headers = {name: value.decode(errors="replace") for name, value in record.headers}
        return _printable(f"{headers.get('service')}: {headers.get('error')} | {_raw(record.value)}")
    try:
        message = _MODELS[record.topic].from_json(record.value)
        priced = _PRICED.get(type(message))
        return _printable(priced(message, currency) if priced else _SAY[type(message)](message))
    except (KeyError, ValueError):
        return _printable(_raw(record.value))


def _raw(value: bytes) -> str:
    text = value.decode(errors="replace")
    try:
        return text if text.isprintable() else json.dumps(json.loads(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _why(*reasons: str | None) -> str:
    said = "; ".join(filter(None, reasons))
    return f" ({said})" if said else ""


def _printable(text: str) -> str:
    """Without what moves a terminal's cursor: line breaks and control characters as their escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _colour(topic: str) -> str:
    return _COLOURS[zlib.crc32(topic.encode()) % len(_COLOURS)]  # the same one in every run
