"""Spans of one batch, collected while it is processed and recorded once it is committed.

Ids of spans that outputs name as their parent are derived from what is processed. So a batch that was dropped writes
the same when it is processed again, and processors see neither a clock nor randomness.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Protocol

from runtime.model.commands import Command
from runtime.model.inheritance import without_trace
from runtime.model.records import NO_OFFSET, Header, PolledBatch, Record
from runtime.model.replays import is_replayed
from runtime.model.traces import REPLAYED_TRACE, SAMPLED, TraceContext, derived_id
from runtime.tracing.spans import MAX_LINKS, ORDER_ID, Attribute, Kind, Span, messaging, order_id_of
from runtime.tracing.tracer import Tracer


class _Sent(Protocol):
    @property
    def value(self) -> Any: ...

    @property
    def inherited(self) -> tuple[Header, ...]: ...


class Changes(Protocol):
    """The context of a processor (`runtime.loop.overlay.ProcessorContext`), as far as spans need it."""

    inherited: tuple[Header, ...]

    @property
    def sent(self) -> Collection[_Sent]: ...

    @property
    def writes(self) -> Mapping[Any, Any]: ...

    @property
    def events(self) -> Collection[str]: ...


class BatchTracer:
    """Makes a `BatchTrace` for each batch of a loop.

    Arguments:
        tracer: the tracer of the worker.
    """

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.attributes: dict[tuple[str, int], dict[str, Attribute]] = {}
        """Attributes of messages, by topic and partition."""
        self._ended_ns = tracer.clock()
        """End of the last batch: since then the loop polls."""

    def batch(self, polled: PolledBatch) -> "BatchTrace":
        """Begins a batch."""
        began_ns, self._ended_ns = self._ended_ns, self.tracer.clock()
        return BatchTrace(self, polled, began_ns)

    def ended(self) -> None:
        """Notes that the loop polls again."""
        self._ended_ns = self.tracer.clock()


class BatchTrace:
    """The spans of one batch. Without a recorded trace among its messages it has none.

    Arguments:
        batches: of the loop.
        polled: the batch.
        began_ns: when the poll began, nanoseconds since 1970.
    """

    def __init__(self, batches: BatchTracer, polled: PolledBatch, began_ns: int) -> None:
        self._batches = batches
        self._tracer = tracer = batches.tracer
        self._clock = tracer.clock
        self._prefix, self._group = tracer.topic_prefix, tracer.group
        self._polled = polled
        self._context = tracer.root()._replace(flags=SAMPLED)
        self._spans: list[Span] = []
        self._seen: dict[TraceContext, int] = {}
        self._steps: list[tuple[str, int, dict[str, int]]] = [("poll", self._clock(), {"records": len(polled.records)})]
        self._began_ns = began_ns

    def message(
        self, ctx: Changes, service: str, topic: str, partition: int, record: Record | None, subject: object
    ) -> Span | None:
        """Begins the span of a message in a service, below the span that sent the message.

        A record without context begins a trace, the same one in every service that reads it. Outputs inherit the new
        span. Returns `None` for a trace that is not recorded.
        """
        parent = TraceContext.of_headers(ctx.inherited) if ctx.inherited else None
        links: list[TraceContext] = []
        root = parent is None
        if parent is None:
            if record is None:
                return None
            parent = self._new_trace(record)
            if (original := _original(record)) is not None:
                links = [original]
        elif record is not None:
            parent = self._tracer.decided(parent)
        if not parent.sampled and not root:
            if record is not None:
                self._pass_on(ctx, parent)
            return None
        offset = NO_OFFSET if record is None else record.offset
        context = self._derived(parent, service, topic, partition, offset)
        self._pass_on(ctx, context)
        if not context.sampled:
            return None
        attributes = self._attributes(topic, partition)
        if record is None:
            attributes["faust_orders.fused"] = True
        else:
            attributes["messaging.kafka.offset"] = offset
            links.append(self._context)
        if (order_id := order_id_of(subject)) is not None:
            attributes[ORDER_ID] = order_id
        span = Span(f"process {topic}", context, None if root else parent, self._clock())
        span.kind, span.service, span.attributes, span.links = Kind.CONSUMER, service, attributes, links
        return span

    def command(self, ctx: Changes, command: Command[Any]) -> Span | None:
        """Begins the span of a command, below that of its request."""
        name = _name_of(command.process)
        return self._begin(ctx, command.trace, f"command {name}", command.service.name, name)

    def timer(self, ctx: Changes, service: str, name: str, key: str) -> Span | None:
        """Begins the span of a due timer, below the span that has set it."""
        parent = TraceContext.of_headers(ctx.inherited) if ctx.inherited else None
        return self._begin(ctx, parent, f"timer {name}", service, key)

    def end(self, span: Span, ctx: Changes, error: str | None = None) -> None:
        """Ends a span. One of a message is kept if the processor did anything, or failed.

        Arguments:
            span: as `message` and its neighbours returned it.
            ctx: the context of the processor, afterwards.
            error: type and text of its error.
        """
        if span.kind is Kind.CONSUMER and error is None and not (ctx.writes or ctx.sent or ctx.events):
            return
        span.end_ns = self._clock()
        if error is not None:
            span.error = error.partition(":")[0]
        for sent in ctx.sent:  # what completes the work of an earlier message belongs to the trace of that one
            other = TraceContext.of_headers(sent.inherited) if sent.inherited else None
            if other is not None and other.trace_id != span.context.trace_id and other not in span.links:
                span.links.append(other)
        if ORDER_ID not in span.attributes:
            about = next((found for sent in ctx.sent if (found := order_id_of(sent.value)) is not None), None)
            if about is not None:
                span.attributes[ORDER_ID] = about
        self._spans.append(span)

    def step(self, name: str, **counts: int) -> None:
        """Notes that a step of the batch has ended, with how many of what it handled."""
        self._steps.append((name, self._clock(), counts))

    def committed(self) -> None:
        """Records the spans of the batch and of its messages."""
        for span in self._spans:
            self._tracer.record(span)
        self._record_batch(None)

    def dropped(self, why: str) -> None:
        """Records the batch as failed, without its messages: they are processed again, here or elsewhere."""
        self.step("commit")
        self._record_batch(why)

    def _record_batch(self, error: str | None) -> None:
        self._batches.ended()
        if not self._spans:
            return
        batch = Span("batch", self._context, None, self._began_ns, self._steps[-1][1], error=error)
        batch.attributes = {
            "messaging.system": "kafka",
            "messaging.consumer.group.name": self._prefix + self._group,
            "messaging.batch.message_count": len(self._polled.records),
            "faust_orders.commands": len(self._polled.commands),
            "faust_orders.spans": len(self._spans),
        }
        # One of each trace; all have a link to the batch.
        first = {span.context.trace_id: span.context for span in reversed(self._spans)}
        batch.links = list(first.values())[::-1][:MAX_LINKS]
        start = self._began_ns
        for name, end, counts in self._steps:
            step = Span(f"batch {name}", self._context.child(name), self._context, start, end)
            step.attributes = {f"faust_orders.{what}": count for what, count in counts.items()}
            if error is not None and name == "commit":
                step.error = error
            start = end
            self._tracer.record(step)
        self._tracer.record(batch)

    def _begin(self, ctx: Changes, parent: TraceContext | None, name: str, service: str, about: str) -> Span | None:
        if parent is None:
            return None
        if not parent.sampled:
            self._pass_on(ctx, parent)
            return None
        context = self._derived(parent, service, name, about)
        self._pass_on(ctx, context)
        return Span(name, context, parent, self._clock(), service=service, links=[self._context])

    def _derived(self, parent: TraceContext, *names: object) -> TraceContext:
        context = parent.child(*names)
        # Of one span, several messages may go to one topic, and are fused: they have no offset to tell them apart.
        again = self._seen.get(context, 0)
        self._seen[context] = again + 1
        return context.child(again) if again else context

    def _new_trace(self, record: Record) -> TraceContext:
        key = (record.key or b"").hex()
        where = self._prefix, record.topic, record.partition, record.offset, record.timestamp_ms, key
        trace_id = derived_id(16, *where)
        return TraceContext(trace_id, "", SAMPLED if self._tracer.sample(None, trace_id) else 0)

    def _attributes(self, topic: str, partition: int) -> dict[str, Attribute]:
        known = self._batches.attributes.get((topic, partition))
        if known is None:
            known = self._batches.attributes[topic, partition] = messaging("process", self._prefix + topic)
            known["messaging.destination.partition.id"] = str(partition)
            known["messaging.consumer.group.name"] = self._prefix + self._group
        return known.copy()

    @staticmethod
    def _pass_on(ctx: Changes, context: TraceContext) -> None:
        headers = context.headers
        ctx.inherited = without_trace(ctx.inherited) + headers if is_replayed(ctx.inherited) else headers


def _original(record: Record) -> TraceContext | None:
    """The trace of the record that this one replays."""
    value = next((value for name, value in record.headers if name == REPLAYED_TRACE), None)
    return None if value is None else TraceContext.parse(value.decode("ascii", "replace"))


def _name_of(function: Any) -> str:
    """Name of a command: that of its function."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__).strip("<>_")
