"""Spans of batches that a sink has stored."""

from collections.abc import Awaitable, Callable, Sequence

from runtime.model.sink import SinkRecord
from runtime.model.traces import SAMPLED, TraceContext
from runtime.tracing.spans import MAX_LINKS, Kind, Span
from runtime.tracing.tracer import Tracer


async def traced(
    tracer: Tracer, service: str, records: Sequence[SinkRecord], store: Callable[[], Awaitable[None]]
) -> None:
    """Stores a batch, and then records its span, and one in each trace that it has records of.

    Arguments:
        tracer: of the worker.
        service: name of the service.
        records: those of the batch.
        store: stores them. After an error nothing is recorded: they are stored again.
    """
    started = tracer.clock()
    await store()
    parents: dict[str, TraceContext] = {}
    counts: dict[str, int] = {}
    for record in records:
        context = TraceContext.of_headers(tuple(record.headers)) if record.headers else None
        if context is not None and tracer.decided(context).sampled:
            parents.setdefault(context.trace_id, context)
            counts[context.trace_id] = counts.get(context.trace_id, 0) + 1
    if not parents:
        return
    batch = tracer.root()._replace(flags=SAMPLED)
    links = list(parents.values())[:MAX_LINKS]
    spans = [Span("store batch", batch, None, started, service=service, links=links)]
    spans[0].attributes["messaging.batch.message_count"] = len(records)
    for trace_id, parent in parents.items():
        own = Span("store records", tracer.within(parent), parent, started, service=service, links=[batch])
        own.attributes["messaging.batch.message_count"] = counts[trace_id]
        spans.append(own)
    for span in spans:
        span.kind = Kind.CONSUMER
        span.attributes["messaging.system"] = "kafka"
        tracer.end(span)
