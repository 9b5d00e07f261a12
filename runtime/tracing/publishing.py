"""Spans of messages that are published outside of the loop: posted orders and rows of an outbox."""

from collections.abc import Awaitable, Callable, Sequence

from runtime.model.records import EVENT_ID, Header, Write
from runtime.model.traces import TRACE_HEADERS, TraceContext
from runtime.tracing.spans import Kind, Span, messaging
from runtime.tracing.tracer import Tracer

Publish = Callable[[Sequence[Write]], Awaitable[None]]


def traced(tracer: Tracer, service: str, publish: Publish) -> Publish:
    """`publish` with a span of each message that continues a trace. Each message names its span as its parent.

    A message that is published again has the same bytes: the id of its span is derived from its event id.
    """

    async def publish_traced(writes: Sequence[Write]) -> None:
        started = tracer.clock()
        spans = [_span(tracer, service, write, started) for write in writes]
        await publish([_under(span, write) for span, write in zip(spans, writes, strict=True)])
        for span in spans:
            if span is not None:
                tracer.end(span)

    return publish_traced


def _span(tracer: Tracer, service: str, write: Write, started_ns: int) -> Span | None:
    parent = TraceContext.of_headers(tuple(write.headers))
    if parent is None or not parent.sampled:
        return None
    event_id = next((value for name, value in write.headers if name == EVENT_ID), None)
    context = parent.child("send", write.topic, event_id)
    span = Span(f"send {write.topic}", context, parent, started_ns, kind=Kind.PRODUCER, service=service)
    span.attributes = messaging("send", tracer.topic_prefix + write.topic)
    return span


def _under(span: Span | None, write: Write) -> Write:
    if span is None:
        return write
    others: tuple[Header, ...] = tuple(header for header in write.headers if header[0] not in TRACE_HEADERS)
    return write._replace(headers=(*others, *span.context.headers))
