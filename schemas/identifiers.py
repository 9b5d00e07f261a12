"""Identifiers: order ids, codes and names, with one rule for Python and for JSON Schema.

Any text a client may choose that also survives a URL, a log line and a Kafka key.
"""

import os
import re
import time
import unicodedata
import uuid
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema
from typing_extensions import TypeAliasType

MAX_LENGTH = 128
# Unicode's control (Cc) and formatting (Cf) characters, line and paragraph separators (Zl, Zp). Not from `unicodedata`,
# whose tables depend on the Python release and cannot be used in JSON Schema.
_INVISIBLE = (
    r"\u0000-\u001F\u007F-\u009F\u00AD\u0600-\u0605\u061C\u06DD\u070F\u0890\u0891\u08E2\u180E\u200B-\u200F"
    r"\u2028-\u202E\u2060-\u2064\u2066-\u206F\uFEFF\uFFF9-\uFFFB"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
    "\U000e0020-\U000e007f"
)
_FORBIDDEN = re.compile(rf"[{_INVISIBLE}\uD800-\uDFFF]")
_PATTERN = rf"^(?!\s)[^{_INVISIBLE}]+(?<!\s)$"
# Own namespace: ids derived elsewhere from the same text are different.
_IDEMPOTENCY_KEYS = uuid.UUID("5f3c1f0a-6c0e-5d0e-9b61-3f0d2f7f6a11")


def _printable(text: str) -> str:
    if text in {".", ".."}:
        raise ValueError("must not be '.' or '..', which are path segments in a URL: choose another id")
    # Fast path, 0.1 µs instead of 3: every message has an id, and nearly all are printable ASCII.
    plain = text.isascii() and text.isprintable()
    if not plain and _FORBIDDEN.search(text):
        raise ValueError("must not contain control, formatting or surrogate characters")
    if text != text.strip():
        raise ValueError("must not start or end with white space")
    return text


def is_composed(text: str) -> bool:
    """Whether a text is in Unicode normalization form C (NFC)."""
    return text.isascii() or unicodedata.is_normalized("NFC", text)


def _composed(text: str) -> str:
    if not is_composed(text):
        raise ValueError(f"must be in Unicode form NFC: write {unicodedata.normalize('NFC', text)!a}")
    return text


Composed = AfterValidator(_composed)
"""Requires NFC. For identifiers given by clients only: topics may contain any form (decision 27)."""


def _schema(max_length: int) -> WithJsonSchema:
    """JSON Schema of `_printable` with a length.

    Surrogates need no mention: JSON in UTF-8 cannot contain them.
    """
    length = {"minLength": 1, "maxLength": max_length}
    return WithJsonSchema({"type": "string", **length, "pattern": _PATTERN, "not": {"enum": [".", ".."]}})


OrderId = TypeAliasType(
    "OrderId",
    Annotated[str, Field(min_length=1, max_length=MAX_LENGTH), AfterValidator(_printable), _schema(MAX_LENGTH)],
)
"""1 to 128 printable characters."""


Code = TypeAliasType(
    "Code", Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable), _schema(64)]
)
"""1 to 64 printable characters: a number or name assigned by another system."""


_LINE_BREAKING = r"\u0000-\u001F\u007F-\u009F\u2028\u2029"
"""Control characters (Cc), line and paragraph separators (Zl, Zp)."""


def _one_line(text: str) -> str:
    if re.search(rf"[{_LINE_BREAKING}\uD800-\uDFFF]", text):
        raise ValueError("must not contain line breaks, control or surrogate characters")
    if not text.strip():
        raise ValueError("must not be blank")
    return text


_NAME = rf"^[^{_LINE_BREAKING}]*[^\s{_LINE_BREAKING}][^{_LINE_BREAKING}]*$"
Name = TypeAliasType(
    "Name",
    Annotated[
        str,
        Field(min_length=1, max_length=256),
        AfterValidator(_one_line),
        WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 256, "pattern": _NAME}),
    ],
)
"""1 to 256 characters on one line, for display."""


def new_order_id() -> str:
    """Generates a UUIDv7, so that new orders are stored next to each other."""
    return _uuid7()


def new_event_id() -> str:
    """Generates a UUIDv7, by which consumers deduplicate."""
    return _uuid7()


def _uuid7() -> str:
    """UUIDv7 (RFC 9562, 5.7): sorts by the millisecond of its creation."""
    raw = bytearray((time.time_ns() // 1_000_000).to_bytes(6) + os.urandom(10))
    raw[6] = 0x70 | raw[6] & 0x0F
    raw[8] = 0x80 | raw[8] & 0x3F
    return str(uuid.UUID(bytes=bytes(raw)))


def time_of(uuid7: str) -> datetime | None:
    """When a UUIDv7 was generated, UTC, by the clock of its worker; `None` for any other text."""
    try:
        parsed = uuid.UUID(uuid7)
        return datetime.fromtimestamp((parsed.int >> 80) / 1000, UTC) if parsed.version == 7 else None
    except (ValueError, OverflowError, OSError):  # no UUID, or a made-up one: of a time beyond the year 9999
        return None


def order_id_for(idempotency_key: str) -> str:
    """Derives the order id from an Idempotency-Key: the same key yields the same id on every worker."""
    return str(uuid.uuid5(_IDEMPOTENCY_KEYS, idempotency_key))
