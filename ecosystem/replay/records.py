"""A record of the history, made ready to be sent again. Pure."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from runtime.model.records import ALSO_CONSUMED_BY, CONSUMED_BY, REPLAYED_FROM, REPLAYS, SIDE_EFFECTS, Header
from runtime.model.replays import PERFORM, REPLAY_HEADERS
from runtime.model.traces import REPLAYED_TRACE, TRACEPARENT, TRACESTATE

# The services that a record was fused with have processed it in the batch that wrote it, and skip it by this header.
# A replay is to be processed by all, so it must not say so. Nothing else of the record changes.
_DROPPED = frozenset({CONSUMED_BY, ALSO_CONSUMED_BY, TRACESTATE}) | REPLAY_HEADERS

_PLACE = re.compile(r"([^/]+)/([0-9]{1,10})/([0-9]{1,19})")
_MOST_DIGITS = 9


class Place(NamedTuple):
    """Where a record lies. The topic has its logical name.

    >>> str(Place("orders", 2, 17)), Place.parse("orders/2/17")
    ('orders/2/17', Place(topic='orders', partition=2, offset=17))
    """

    topic: str
    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a place. Raises `ValueError`."""
        found = _PLACE.fullmatch(text)
        if not found:
            raise ValueError(f"{text!r} is not TOPIC/PARTITION/OFFSET")
        return cls(found[1], int(found[2]), int(found[3]))

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class Resubmission(NamedTuple):
    """A record to be sent.

    Arguments:
        place: where the original lies.
        stage: of the original.
        topic: where it is sent, by its logical name.
        partition: that of the original.
        headers: without those of the replay itself.
        timestamp_ms: milliseconds since 1970; `None`: now.
        order_id: the order that it is about, as far as it is about one; also `product` and `customer_id`.
    """

    place: Place
    stage: str
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    timestamp_ms: int | None
    order_id: str | None = None
    product: str | None = None
    customer_id: int | None = None


def original_headers(headers: Iterable[Header]) -> tuple[Header, ...]:
    """The headers that are sent again, in their order. A replay begins a trace of its own, with a link to this one.

    >>> original_headers([("consumed-by", b"orders"), ("made-at", b"1"), ("traceparent", b"00-1-2-01")])
    (('made-at', b'1'), ('replayed-trace', b'00-1-2-01'))
    """
    kept: list[Header] = []
    for header in headers:
        if header[0] == TRACEPARENT:
            kept.append((REPLAYED_TRACE, header[1]))
        elif header[0] not in _DROPPED:
            kept.append(header)
    return tuple(kept)


def replay_headers(place: Place, replays: int, *, side_effects: bool) -> tuple[Header, ...]:
    """The headers that mark a replay.

    >>> replay_headers(Place("orders", 2, 17), 1, side_effects=False)
    (('replayed-from', b'orders/2/17'), ('replays', b'1'))
    """
    marks: tuple[Header, ...] = ((REPLAYED_FROM, str(place).encode()), (REPLAYS, str(replays).encode()))
    return (*marks, (SIDE_EFFECTS, PERFORM)) if side_effects else marks


class Mark(NamedTuple):
    """What the headers of a replay, or of a record that follows from one, say."""

    place: Place
    replays: int


def mark_of(headers: Sequence[Header]) -> Mark | None:
    """The mark of a replay; `None` if the record is none. Headers that are no mark of ours do not count.

    >>> mark_of([("replayed-from", b"orders/2/17"), ("replays", b"2")])
    Mark(place=Place(topic='orders', partition=2, offset=17), replays=2)
    >>> mark_of([("replayed-from", b"my head")]) is None
    True
    """
    values = {name: value for name, value in headers if name in REPLAY_HEADERS and value is not None}
    count = values.get(REPLAYS, b"1")
    try:
        place = Place.parse(values[REPLAYED_FROM].decode())
    except (KeyError, ValueError):
        return None
    return Mark(place, int(count) if count.isdigit() and len(count) <= _MOST_DIGITS else 1)
