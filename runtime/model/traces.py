"""Trace contexts: which trace a message, request or row belongs to, and the span that led to it. Pure.

W3C Trace Context (www.w3.org/TR/trace-context), in headers of HTTP requests and Kafka records.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple, Self

from runtime.model.records import Header

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
TRACE_HEADERS = frozenset({TRACEPARENT, TRACESTATE})

REPLAYED_TRACE = "replayed-trace"
"""Header of a replayed message: `traceparent` of the original. The replay begins a trace of its own, with a link."""

SAMPLED = 0x01
_KNOWN_FLAGS = 0x03  # sampled, and random trace id (Trace Context level 2)

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class TraceContext(NamedTuple):
    """A span as its children know it.

    Arguments:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits; `NO_SPAN` for a trace that begins without a span.
        flags: bit 0: sampled.
        state: `tracestate`, passed on unchanged.

    >>> context = TraceContext.parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    >>> context.sampled, context.traceparent
    (True, '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')
    """

    trace_id: str
    span_id: str
    flags: int
    state: str = ""

    @classmethod
    def parse(cls, traceparent: str, tracestate: str = "") -> Self | None:
        """Reads both headers; `None` if `traceparent` is invalid: then a new trace begins."""
        found = _TRACEPARENT.fullmatch(traceparent)
        if found is None:
            return None
        version, trace_id, span_id, flags, more = found.groups()
        if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
            return None
        return cls(trace_id, span_id, int(flags, 16) & _KNOWN_FLAGS, tracestate)

    @staticmethod
    def of_headers(headers: tuple[Header, ...]) -> "TraceContext | None":
        """Reads the context from inherited headers, or those of a record."""
        return _of_headers(headers)

    @classmethod
    def of_row(cls, row: Mapping[str, str] | None) -> Self | None:
        """Reads the context from the field `trace` of a row."""
        return cls.parse(row.get(TRACEPARENT, ""), row.get(TRACESTATE, "")) if row else None

    @property
    def sampled(self) -> bool:
        """Whether spans of this trace are recorded."""
        return bool(self.flags & SAMPLED)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def values(self) -> dict[str, str]:
        """Both headers, as text."""
        parent = {TRACEPARENT: self.traceparent}
        return {**parent, TRACESTATE: self.state} if self.state else parent

    @property
    def headers(self) -> tuple[Header, ...]:
        """Both headers of a Kafka record."""
        return tuple((name, value.encode()) for name, value in self.values.items())

    def child(self, *names: object) -> "TraceContext":
        """The context of a span below this one. Its id is derived from what the span is about."""
        span_id = derived_id(8, self.trace_id, self.span_id, *names)
        return TraceContext(self.trace_id, span_id, self.flags, self.state)


@lru_cache(maxsize=1024)  # services of a worker read the same headers one after the other
def _of_headers(headers: tuple[Header, ...]) -> TraceContext | None:
    parent, state = None, b""
    for name, value in headers:
        if name == TRACEPARENT:
            parent = value
        elif name == TRACESTATE:
            state = value or b""
    if parent is None:
        return None
    return TraceContext.parse(parent.decode("ascii", "replace"), state.decode("ascii", "replace"))


CURRENT: ContextVar[TraceContext | None] = ContextVar("trace", default=None)
"""The span within which the present task runs: that of a request, or of a side effect. `None` without tracing."""


def current_values() -> dict[str, str]:
    """The headers of `CURRENT`, as text. Empty without tracing."""
    context = CURRENT.get()
    return {} if context is None else context.values


def current_headers() -> list[Header] | None:
    """The headers of `CURRENT`, of a Kafka record; `None` without tracing."""
    context = CURRENT.get()
    return None if context is None else list(context.headers)


def derived_id(size: int, *names: object) -> str:
    """An id that is the same whenever the same is processed. `size` is in bytes.

    >>> derived_id(8, "orders", 2, 17) == derived_id(8, "orders", 2, 17)
    True
    """
    return blake2b("\0".join(map(str, names)).encode(), digest_size=size).hexdigest()
