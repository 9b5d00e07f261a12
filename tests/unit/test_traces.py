"""Trace contexts by W3C Trace Context, which traces are recorded, and settings of traces."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import ValidationError

from runtime.common.settings import Settings
from runtime.model.traces import TRACEPARENT, TraceContext
from runtime.tracing.otlp import sampler, sampling
from runtime.tracing.settings import TraceSettings
from runtime.tracing.spans import order_id_of
from runtime.tracing.tracer import Tracer
from schemas.topics import PAYMENTS
from tests.samples import checked_in, order
from tests.traces import Spans

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = TraceContext(TRACE, SPAN, 1)


@pytest.mark.parametrize(
    ("traceparent", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", 1),
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-03", 3),  # a random trace id
        (f"00-{TRACE}-{SPAN}-ff", 3),  # unknown flags are not passed on
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", 1),  # a later version
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        ("", None),
    ],
)
def test_traceparent_is_read_as_the_standard_says(traceparent, flags):
    context = TraceContext.parse(traceparent)
    assert (context and context.flags) == flags
    if context is not None:
        assert context.traceparent == f"00-{TRACE}-{SPAN}-{flags:02x}"


@given(st.from_regex(r"\A(00|01|ff)-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]\Z"))
def test_the_propagator_of_opentelemetry_reads_the_same(traceparent):
    from opentelemetry.trace import get_current_span

    theirs = get_current_span(TraceContextTextMapPropagator().extract({TRACEPARENT: traceparent})).get_span_context()
    ours = TraceContext.parse(traceparent)
    assert theirs.is_valid is (ours is not None)
    if ours is not None:
        assert (f"{theirs.trace_id:032x}", f"{theirs.span_id:016x}") == (ours.trace_id, ours.span_id)


def test_a_context_survives_headers_and_rows():
    context = PARENT._replace(state="vendor=1")
    assert TraceContext.of_headers(context.headers) == context
    assert TraceContext.of_row(context.values) == context


def test_ids_of_children_are_those_of_what_they_are_about():
    assert PARENT.child("orders", 2, 17) == PARENT.child("orders", 2, 17)
    assert len({PARENT.child("orders", 2, n) for n in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("name", "recorded", "not_recorded"),
    [
        ("always_on", (None, PARENT, PARENT._replace(flags=0)), ()),
        ("always_off", (), (None, PARENT)),
        ("traceidratio", (), (None, PARENT)),
        ("parentbased_always_on", (None, PARENT), (PARENT._replace(flags=0),)),
        ("parentbased_always_off", (PARENT,), (None, PARENT._replace(flags=0))),
        ("parentbased_traceidratio", (PARENT,), (None, PARENT._replace(flags=0))),
    ],
)
def test_samplers_decide_as_their_names_say(name, recorded, not_recorded):
    sample = sampling(sampler(name, 0.0))
    assert [sample(parent, TRACE) for parent in recorded] == [True] * len(recorded)
    assert [sample(parent, TRACE) for parent in not_recorded] == [False] * len(not_recorded)


def test_a_ratio_records_its_share():
    tracer = Tracer(sampling(sampler("parentbased_traceidratio", 0.25)), print)
    assert 150 < sum(tracer.root().sampled for _ in range(1000)) < 350


@pytest.mark.parametrize("flags", [0, 1])
def test_only_spans_of_sampled_traces_are_recorded(flags):
    spans = Spans()
    tracer = spans.tracer()
    tracer.end(tracer.begin("work", PARENT._replace(flags=flags)))
    assert len(spans) == flags


def test_another_decision_than_that_of_the_caller_is_passed_on():
    assert not Tracer(lambda parent, trace: False, print).within(PARENT).sampled


@pytest.mark.parametrize(
    ("settings", "on"),
    [
        ({}, False),
        ({"otel_exporter_otlp_endpoint": "http://collector:4318"}, True),
        ({"otel_exporter_otlp_traces_endpoint": "http://collector:4318/traces"}, True),
        ({"otel_traces_exporter": "otlp"}, True),
        ({"otel_traces_exporter": "console"}, True),
        ({"otel_exporter_otlp_endpoint": "http://collector:4318", "otel_traces_exporter": "none"}, False),
        ({"otel_exporter_otlp_endpoint": "http://collector:4318", "otel_sdk_disabled": "TRUE"}, False),
        ({"otel_exporter_otlp_protocol": "grpc"}, False),  # of no consequence while traces are off
    ],
)
def test_what_turns_traces_on(settings, on):
    assert Settings(**settings).of(TraceSettings).on is on


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("otel_exporter_otlp_protocol", "grpc", "use http/protobuf; its port is usually 4318"),
        ("otel_traces_exporter", "zipkin", "use otlp or console or none"),
        ("otel_traces_sampler", "jaeger_remote", "use always_on or"),
        ("otel_traces_sampler_arg", "2", "no number from 0 to 1"),
        ("otel_traces_sampler_arg", "much", "no number from 0 to 1"),
        ("otel_exporter_otlp_traces_endpoint", "collector:4318", "no URL such as"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(name, value, remedy):
    with pytest.raises(ValidationError, match=remedy) as raised:
        TraceSettings(**{"otel_exporter_otlp_endpoint": "http://collector:4318", name: value})
    assert raised.value.errors()[0]["loc"] == (name,)


def test_empty_variables_are_unset_ones(monkeypatch):
    for name in TraceSettings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    settings = TraceSettings()
    assert (settings.on, settings.sampler, settings.ratio) == (False, "parentbased_always_on", 1.0)


@pytest.mark.parametrize(
    ("message", "order_id"),
    [
        (order("o-1"), "o-1"),
        (PAYMENTS.model(id="p-1", order_id="o-1", ccy="EUR", amount=1), "o-1"),
        (checked_in(order_id="o-1"), "o-1"),
        ("tombstone", None),
        (None, None),
    ],
    ids=str,
)
def test_which_order_a_message_is_about(message, order_id):
    assert order_id_of(message) == order_id


OFF = """
import sys
import ecosystem.services
from runtime.common.settings import Settings
import runtime.worker.worker
from runtime.tracing.start import start_tracing
assert start_tracing(Settings(), "w", "g") is None
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""

NOT_INSTALLED = """
import sys
sys.modules["opentelemetry"] = None
from runtime.common.settings import Settings
from runtime.errors import TracingNotInstalled
from runtime.tracing.start import start_tracing
try:
    start_tracing(Settings(otel_traces_exporter="otlp"), "w", "g")
except TracingNotInstalled as error:
    print(error)
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_off_imports_nothing_of_opentelemetry():
    assert run(OFF).strip() == "[]"


def test_a_missing_package_is_named_with_its_remedy():
    assert "install `faust-orders[traces]`" in run(NOT_INSTALLED)
