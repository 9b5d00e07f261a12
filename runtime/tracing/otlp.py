"""Exports spans by OpenTelemetry's SDK. The only module that imports it, and only once a worker traces."""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from runtime.model.traces import TraceContext
from runtime.tracing.settings import PARENT_BASED, TraceSettings
from runtime.tracing.spans import SERVICE, Span
from runtime.tracing.tracer import Sample

log = logging.getLogger(__name__)

SERVICE_NAMESPACE = "faust-orders"
"""`service.namespace`, and the `service.name` of what concerns no single service: batches."""

_SCOPE = InstrumentationScope("faust_orders")
_ERROR_TYPE = "error.type"
_KINDS = {kind.name: kind for kind in SpanKind}
_OK, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
_NO_STATE = TraceState()
_NOISY = ("opentelemetry.exporter", "opentelemetry.sdk")
"""Loggers that repeat themselves while a collector does not answer: `ReportingExporter` says it once."""


class Export(NamedTuple):
    """A running exporter.

    Arguments:
        record: takes finished spans.
        sample: the sampler.
        stop: exports what waits, for some seconds at most. Blocks.
    """

    record: Callable[[Span], None]
    sample: Sample
    stop: Callable[[], None]


def start(settings: TraceSettings, instance: str) -> Export:
    """Starts to export. `instance` is `service.instance.id`. Needs no collector yet."""
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    endpoint = settings.traces_endpoint
    if settings.otel_traces_exporter == "console":
        processor: SpanProcessor = BatchSpanProcessor(ConsoleSpanExporter())
    else:
        processor = BatchSpanProcessor(ReportingExporter(OTLPSpanExporter(endpoint), endpoint))
    log.info("tracing started endpoint=%s sampler=%s ratio=%g", endpoint, settings.sampler, settings.ratio)
    return Export(
        SpanRecorder(processor, instance, settings.otel_service_name),
        sampling(sampler(settings.sampler, settings.ratio)),
        processor.shutdown,
    )


class ReportingExporter(SpanExporter):
    """Logs once when the collector stops to accept spans, and once when it accepts them again.

    Arguments:
        exporter: exports.
        endpoint: for the log.
    """

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._failing = False
        self._stopped = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Exports, with the retries of the exporter. Runs in a thread of its own."""
        result = self._exporter.export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing is not self._failing and not self._stopped:
            self._failing = failing
            if failing:
                remedy = "start a collector there, or unset OTEL_EXPORTER_OTLP_ENDPOINT"
                log.warning("traces not exported, spans are lost endpoint=%s remedy=%s", self._endpoint, remedy)
            else:
                log.info("traces exported again endpoint=%s", self._endpoint)
        return result

    def shutdown(self) -> None:
        self._stopped = True
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class SpanRecorder:
    """Turns spans into those of the SDK, each with the resource of its service, and hands them to a processor.

    Arguments:
        processor: takes ended spans. `BatchSpanProcessor` drops the oldest ones when its queue is full.
        instance: `service.instance.id`.
        service_name: `service.name` of all spans; `None`: that of the service that a span belongs to.
    """

    def __init__(self, processor: SpanProcessor, instance: str, service_name: str | None = None) -> None:
        self._processor = processor
        base = Resource.create({"service.namespace": SERVICE_NAMESPACE, SERVICE_INSTANCE_ID: instance})
        self._resource = lru_cache(
            lambda service: base.merge(Resource({SERVICE_NAME: service_name or service or SERVICE_NAMESPACE}))
        )

    def __call__(self, span: Span) -> None:
        attributes = span.attributes
        if span.service is not None:
            attributes[SERVICE] = span.service
        if span.error is not None:
            attributes[_ERROR_TYPE] = span.error
        self._processor.on_end(
            ReadableSpan(
                span.name,
                _context(span.context),
                None if span.parent is None else _context(span.parent),
                self._resource(span.service),
                attributes,
                links=[Link(_context(link)) for link in span.links],
                kind=_KINDS[span.kind.value],
                status=_OK if span.error is None else _ERROR,
                start_time=span.start_ns,
                end_time=span.end_ns,
                instrumentation_scope=_SCOPE,
            )
        )


def sampler(name: str, ratio: float) -> Sampler:
    """The sampler of this name in `OTEL_TRACES_SAMPLER`."""
    known = {"always_on": ALWAYS_ON, "always_off": ALWAYS_OFF, "traceidratio": TraceIdRatioBased(ratio)}
    root = known[name.removeprefix(PARENT_BASED)]
    return ParentBased(root) if name.startswith(PARENT_BASED) else root


def sampling(chosen: Sampler) -> Sample:
    """Whether a trace is sampled, as the tracer asks it."""
    if isinstance(chosen, ParentBased):
        return lambda parent, trace_id: parent.sampled if parent is not None else _asked(chosen, None, trace_id)
    return lambda parent, trace_id: _asked(chosen, parent, trace_id)


def _asked(chosen: Sampler, parent: TraceContext | None, trace_id: str) -> bool:
    context = Context()
    if parent is not None:
        context = set_span_in_context(NonRecordingSpan(_context(parent, remote=True)), context)
    return chosen.should_sample(context, int(trace_id, 16), "").decision is Decision.RECORD_AND_SAMPLE


@lru_cache(maxsize=4096)  # a context is that of its span, parent of others, and a link
def _context(context: TraceContext, *, remote: bool = False) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else _NO_STATE
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), remote, TraceFlags(context.flags), state)


def stop_within(export: Export, seconds: float) -> None:
    """Exports what waits, in a thread that nobody waits for longer than this. The process may end before it."""
    thread = threading.Thread(target=export.stop, name="traces", daemon=True)
    thread.start()
    thread.join(seconds)
