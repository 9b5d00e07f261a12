"""Headers that everything inherits which comes of processing a message: marks of a replay, and the trace. Pure.

The marks come first. A row keeps both apart, so that a version without traces takes no trace for a replay.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from runtime.model.records import REPLAYED_FROM, Header
from runtime.model.replays import REPLAY_HEADERS
from runtime.model.traces import TRACE_HEADERS

NOTHING: tuple[Header, ...] = ()
"""What a message without marks passes on."""

_MAX_VALUE = 512
"""Bytes of a header that is inherited: clients may write any. W3C Trace Context, 3.3.1.5: 512 of `tracestate`."""


class HeirRow(Protocol):
    """A row that keeps inherited headers."""

    @property
    def replayed(self) -> Mapping[str, str] | None: ...

    @property
    def trace(self) -> Mapping[str, str] | None: ...


def inheritable(headers: Iterable[Header]) -> tuple[Header, ...]:
    """The marks of a replayed message; `NOTHING` of one that is not replayed.

    >>> inheritable([("consumed-by", b"orders"), ("replayed-from", b"orders/2/17"), ("replays", b"1")])
    (('replayed-from', b'orders/2/17'), ('replays', b'1'))
    """
    found = _found(headers, REPLAY_HEADERS)
    return tuple(found.items()) if REPLAYED_FROM in found else NOTHING


def inheritable_with_trace(headers: Iterable[Header]) -> tuple[Header, ...]:
    """The marks of a replayed message, and the trace context of any message."""
    return inheritable(headers) + tuple(_found(headers, TRACE_HEADERS).items())


def without_trace(inherited: tuple[Header, ...]) -> tuple[Header, ...]:
    """Inherited headers without the trace context."""
    return tuple(header for header in inherited if header[0] not in TRACE_HEADERS) if inherited else NOTHING


def to_row(inherited: tuple[Header, ...]) -> dict[str, dict[str, str]]:
    """The fields of a row that keep inherited headers; none for `NOTHING`.

    >>> to_row((("replays", b"1"), ("traceparent", b"00-1-2-01")))
    {'replayed': {'replays': '1'}, 'trace': {'traceparent': '00-1-2-01'}}
    """
    fields: dict[str, dict[str, str]] = {}
    for name, value in inherited:
        kept = fields.setdefault("trace" if name in TRACE_HEADERS else "replayed", {})
        kept[name] = (value or b"").decode()
    return fields


def from_row(row: HeirRow) -> tuple[Header, ...]:
    """What `to_row` was given."""
    if row.replayed is None and row.trace is None:
        return NOTHING
    kept = {**(row.replayed or {}), **(row.trace or {})}
    return tuple((name, value.encode()) for name, value in kept.items())


def _found(headers: Iterable[Header], names: frozenset[str]) -> dict[str, bytes]:
    """The first value of each of these headers, as far as it may be inherited."""
    found: dict[str, bytes] = {}
    for name, value in headers:
        if name in names and value is not None and len(value) <= _MAX_VALUE and value.isascii():
            found.setdefault(name, value)
    return found
