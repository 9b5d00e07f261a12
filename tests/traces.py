"""Spans that tests record, and the traces that they form."""

from collections.abc import Iterator

from runtime.model.traces import TraceContext
from runtime.tracing.spans import Span
from runtime.tracing.tracer import Tracer

TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT = TraceContext(TRACE, "b7ad6b7169203331", 1)
"""The span of a client that begins the trace of an order."""


class Spans(list[Span]):
    """All recorded spans."""

    def tracer(self, *, sampled: bool = True) -> Tracer:
        """A tracer that records here, and decides as the caller; `sampled` if there is none."""
        return Tracer(lambda parent, _: sampled if parent is None else parent.sampled, self.append)

    def of(self, trace_id: str = TRACE) -> list[Span]:
        return [span for span in self if span.context.trace_id == trace_id]

    def named(self, name: str) -> list[Span]:
        return [span for span in self if span.name == name]

    def paths(self, parent: TraceContext = CLIENT) -> Iterator[str]:
        """Each span below `parent` with those that led to it: `orders: command place > fraud: process orders`."""
        for span in self:
            if span.parent is not None and span.parent.span_id == parent.span_id:
                own = f"{span.service}: {span.name}"
                yield own
                yield from (f"{own} > {path}" for path in self.paths(span.context))
