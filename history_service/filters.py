"""Filters of a list of orders, and the cursor of its next page. Pure."""

import base64
import hashlib
import struct
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from schemas.messages import OrderState

FEWEST_CHARACTERS = 3
"""Characters of a text to search: the index has groups of three."""
MOST_CHARACTERS = 256
"""Characters of a text to search: longer values of headers are not indexed."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FILTERS_BYTES = 8
_CHECK_BYTES = 4
_HEAD = struct.Struct(f">{_CHECK_BYTES}s{_FILTERS_BYTES}sq")
_LONGEST_CURSOR = 1024


@dataclass(frozen=True, slots=True)
class Filters:
    """Which orders a list has. `None` and an empty tuple stand for all.

    Arguments:
        states: sorted, each once.
        customer_id: the customer.
        product: the product.
        reason: a part of one of the order's reasons.
        since: the earliest `created_at`.
        before: the first `created_at` that is too late.
        part: a part of one of the order's texts.
    """

    states: tuple[OrderState, ...] = ()
    customer_id: int | None = None
    product: str | None = None
    reason: str | None = None
    since: datetime | None = None
    before: datetime | None = None
    part: str | None = None

    @property
    def digest(self) -> bytes:
        """Tells filters apart, but for their times.

        A client that asks for the last 24 hours names another time for each page. Pages follow one another by
        `created_at`, so that a list may go on within other times.
        """
        values = [getattr(self, field.name) for field in fields(self) if field.name not in ("since", "before")]
        return _digest(repr(values).encode(errors="surrogatepass"), _FILTERS_BYTES)


class Position(NamedTuple):
    """The last order of a page."""

    created_at: datetime
    id: str


class InvalidCursorError(ValueError):
    """The text is no cursor of this list. The message says what it must be."""


def write_cursor(filters: Filters, last: Position) -> str:
    """The cursor of the page after an order.

    >>> cursor = write_cursor(Filters(), Position(datetime(2026, 1, 31, tzinfo=UTC), "my-order"))
    >>> read_cursor(Filters(), cursor).id
    'my-order'
    >>> read_cursor(Filters(product="mug"), cursor)
    Traceback (most recent call last):
    history_service.filters.InvalidCursorError: belongs to a list with other filters: repeat its filters, or omit it
    """
    content = filters.digest + struct.pack(">q", (last.created_at - _EPOCH) // _MICROSECOND) + last.id.encode()
    return base64.urlsafe_b64encode(_digest(content, _CHECK_BYTES) + content).decode().rstrip("=")


def read_cursor(filters: Filters, cursor: str) -> Position:
    """The order after which the page begins. Raises `InvalidCursorError`."""
    invalid = InvalidCursorError("must be `next` of the page before, unchanged")
    if not cursor.isascii() or len(cursor) > _LONGEST_CURSOR:
        raise invalid
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        check, digest, microseconds = _HEAD.unpack_from(raw)
        position = Position(_EPOCH + timedelta(microseconds=microseconds), raw[_HEAD.size :].decode())
    except (ValueError, OverflowError, struct.error):
        raise invalid from None
    if check != _digest(raw[_CHECK_BYTES:], _CHECK_BYTES):
        raise invalid
    if digest != filters.digest:
        raise InvalidCursorError("belongs to a list with other filters: repeat its filters, or omit it")
    return position


def _digest(content: bytes, size: int) -> bytes:
    return hashlib.blake2b(content, digest_size=size).digest()
