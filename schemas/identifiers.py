"""Order ids: any text a client may choose that also survives a URL, a log line and a Kafka key."""

import os
import re
import time
import unicodedata
import uuid
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema
from typing_extensions import TypeAliasType

MAX_LENGTH = 128
# Unicode's control (Cc) and formatting (Cf) characters, line and paragraph separators (Zl, Zp). `unicodedata` is not
# asked: it would give each Python its own answer, and the documents, which say this too, none.
_INVISIBLE = (
    r"\u0000-\u001F\u007F-\u009F\u00AD\u0600-\u0605\u061C\u06DD\u070F\u0890\u0891\u08E2\u180E\u200B-\u200F"
    r"\u2028-\u202E\u2060-\u2064\u2066-\u206F\uFEFF\uFFF9-\uFFFB"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
    "\U000e0020-\U000e007f"
)
_REFUSED = re.compile(rf"[{_INVISIBLE}\uD800-\uDFFF]")
_PATTERN = rf"^(?!\s)[^{_INVISIBLE}]+(?<!\s)$"
# A namespace of our own, so that an Idempotency-Key never meets an id made elsewhere from the same text.
_IDEMPOTENCY_KEYS = uuid.UUID("5f3c1f0a-6c0e-5d0e-9b61-3f0d2f7f6a11")


def _printable(text: str) -> str:
    if text in {".", ".."}:
        raise ValueError("'.' and '..' cannot be told from a path in a URL; choose another id")
    # Nearly every id is printable ASCII, and every message has one: 0.1 µs instead of 3.
    plain = text.isascii() and text.isprintable()
    if not plain and _REFUSED.search(text):
        raise ValueError("control, formatting and surrogate characters are not allowed in an id")
    if text != text.strip():
        raise ValueError("an id must not start or end with white space")
    return text


def is_composed(text: str) -> bool:
    """Whether a text is in Unicode normalization form C: of all ways to write the same characters the usual one."""
    return text.isascii() or unicodedata.is_normalized("NFC", text)


def _composed(text: str) -> str:
    if not is_composed(text):
        raise ValueError(f"must be in Unicode form NFC: write {unicodedata.normalize('NFC', text)!a}")
    return text


Composed = AfterValidator(_composed)
"""For names that a client gives or refers to. What is on topics may be in any form (decision 27)."""


def _schema(max_length: int) -> WithJsonSchema:
    """What `_printable` and a length come to; no JSON text in UTF-8 holds a surrogate."""
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
"""1 to 64 printable characters: a number or a name that somebody else gives."""


_NOT_ON_A_LINE = r"\u0000-\u001F\u007F-\u009F\u2028\u2029"
"""Control characters (Cc), line and paragraph separators (Zl, Zp)."""


def _readable(text: str) -> str:
    if re.search(rf"[{_NOT_ON_A_LINE}\uD800-\uDFFF]", text):
        raise ValueError("line breaks, control and surrogate characters are not allowed in a name")
    if not text.strip():
        raise ValueError("a name must have something to read")
    return text


_NAME = rf"^[^{_NOT_ON_A_LINE}]*[^\s{_NOT_ON_A_LINE}][^{_NOT_ON_A_LINE}]*$"
Name = TypeAliasType(
    "Name",
    Annotated[
        str,
        Field(min_length=1, max_length=256),
        AfterValidator(_readable),
        WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 256, "pattern": _NAME}),
    ],
)
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
