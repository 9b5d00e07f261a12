"""The tracer of a worker: begins spans, and decides which traces are recorded."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runtime.model.traces import SAMPLED, TRACEPARENT, TRACESTATE, TraceContext
from runtime.tracing.spans import Kind, Record, Span

Sample = Callable[[TraceContext | None, str], bool]
"""Whether a trace is recorded, by the parent, if there is one, and the trace id."""


@dataclass(frozen=True, slots=True)
class Tracer:
    """Begins spans and records them.

    Arguments:
        sample: the sampler.
        record: takes finished spans.
        topic_prefix: begins the names of all topics.
        group: consumer group of the worker.
        clock: nanoseconds since 1970.
    """

    sample: Sample
    record: Record
    topic_prefix: str = ""
    group: str = ""
    clock: Callable[[], int] = time.time_ns

    def root(self) -> TraceContext:
        """The context of a first span, of a new trace. Random."""
        trace_id = f"{random.getrandbits(128) or 1:032x}"
        return TraceContext(trace_id, self._span_id(), SAMPLED if self.sample(None, trace_id) else 0)

    def within(self, parent: TraceContext) -> TraceContext:
        """The context of a span below `parent`. Its id is random: not for what a batch writes."""
        return self.decided(parent)._replace(span_id=self._span_id())

    def decided(self, parent: TraceContext) -> TraceContext:
        """A remote parent, with the decision of the sampler here."""
        sampled = self.sample(parent, parent.trace_id)
        return parent if sampled is parent.sampled else parent._replace(flags=parent.flags ^ SAMPLED)

    def begin(
        self, name: str, parent: TraceContext | None, kind: Kind = Kind.INTERNAL, service: str | None = None
    ) -> Span:
        """Begins a span of a request or a call. Its context says whether it is to be recorded."""
        context = self.root() if parent is None else self.within(parent)
        return Span(name, context, parent, self.clock(), kind=kind, service=service)

    def end(self, span: Span, error: str | None = None) -> None:
        """Ends a span, and records it if its trace is sampled."""
        if span.context.sampled:
            span.end_ns, span.error = self.clock(), error
            self.record(span)

    @staticmethod
    def _span_id() -> str:
        return f"{random.getrandbits(64) or 1:016x}"


def context_of_request(headers: Mapping[str, str]) -> TraceContext | None:
    """The trace that the client of a request continues; `None` if it has none."""
    parent = headers.get(TRACEPARENT)
    return None if parent is None else TraceContext.parse(parent, headers.get(TRACESTATE, "")[:512])
