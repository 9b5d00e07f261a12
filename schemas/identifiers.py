"""Order ids: any text a client may choose that also survives a URL, a log line and a Kafka key."""

import os
import time
import unicodedata
import uuid
from typing import Annotated

from pydantic import AfterValidator, Field

MAX_LENGTH = 128
# A namespace of our own, so that an Idempotency-Key never meets an id made elsewhere from the same text.
_IDEMPOTENCY_KEYS = uuid.UUID("5f3c1f0a-6c0e-5d0e-9b61-3f0d2f7f6a11")


def _printable(text: str) -> str:
    if text in {".", ".."}:
        raise ValueError("'.' and '..' cannot be told from a path in a URL; choose another id")
    # Nearly every id is printable ASCII, and every message has one: 0.1 µs instead of 3.
    plain = text.isascii() and text.isprintable()
    if not plain and any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in text):
        raise ValueError("control, formatting and surrogate characters are not allowed in an id")
    if text != text.strip():
        raise ValueError("an id must not start or end with white space")
    return text


OrderId = Annotated[str, Field(min_length=1, max_length=MAX_LENGTH), AfterValidator(_printable)]
"""1 to 128 printable characters."""


Code = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
"""1 to 64 printable characters: a number or a name that somebody else gives."""


def _readable(text: str) -> str:
    if any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in text):
        raise ValueError("line breaks, control and surrogate characters are not allowed in a name")
    if not text.strip():
        raise ValueError("a name must have something to read")
    return text


Name = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_readable)]
"""1 to 256 characters on one line, for people to read."""


def new_order_id() -> str:
    """A UUIDv7: new orders are near each other on disk."""
    return _uuid7()


def new_event_id() -> str:
    """A UUIDv7, by which who reads a message twice can tell."""
    return _uuid7()


def _uuid7() -> str:
    """RFC 9562, 5.7: sorts by the millisecond it was made in."""
    raw = bytearray((time.time_ns() // 1_000_000).to_bytes(6) + os.urandom(10))
    raw[6] = 0x70 | raw[6] & 0x0F
    raw[8] = 0x80 | raw[8] & 0x3F
    return str(uuid.UUID(bytes=bytes(raw)))


def order_id_for(idempotency_key: str) -> str:
    """The id of the order posted under an Idempotency-Key: the same key names the same order on every worker."""
    return str(uuid.uuid5(_IDEMPOTENCY_KEYS, idempotency_key))
