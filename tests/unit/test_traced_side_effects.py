"""Attempts at side effects belong to the trace of the message that enqueued them."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from runtime.errors import SideEffectDeferred, SideEffectRejected
from runtime.metrics.side_effects import SideEffectMetrics
from runtime.model.commands import PendingCommand
from runtime.model.service import PendingSideEffect, Service, SideEffect
from runtime.model.topology import Topology
from runtime.model.traces import CURRENT
from runtime.side_effects.dispatcher import SideEffects
from runtime.side_effects.scheduler import AttemptScheduler
from runtime.tracing.spans import ORDER_ID
from schemas.messages import Payment
from tests.traces import CLIENT, Spans

METRICS = SideEffectMetrics(CollectorRegistry())
PAYLOAD = Payment(id="p-1", order_id="o-1", ccy="EUR", amount=1).to_json()


class Desk:
    """The other side of a side effect, and a stand-in for the loop."""

    def __init__(self, *errors):
        self.spans, self.errors, self.within, self.acknowledged = Spans(), list(errors), [], []
        effect = SideEffect("pay back", Payment, self._perform)
        self.service = Service("desk", (), (), side_effects=(effect,))
        tracer = self.spans.tracer()
        self.side_effects = SideEffects(Topology((self.service,)), self._submit, metrics=METRICS, tracer=tracer)

    async def _perform(self, key, payment):
        self.within.append(CURRENT.get())
        if self.errors:
            raise self.errors.pop(0)

    def _submit(self, service, partition, decide):
        self.acknowledged.append(CURRENT.get())
        self.side_effects.apply(self.service.pending.name, 0, {b"k": None})
        command = PendingCommand(service, partition, lambda ctx: None)
        command.settle()
        return command

    def enqueue(self, trace):
        row = PendingSideEffect(effect="pay back", payload=PAYLOAD, trace=trace)
        self.side_effects.apply(self.service.pending.name, 0, {b"k": row.to_json()})

    async def done(self):
        async with asyncio.timeout(20):
            while not self.acknowledged:
                await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(AttemptScheduler, "FIRST_PAUSE_S", 0.001)


async def test_each_attempt_has_a_span_below_the_message():
    desk = Desk(SideEffectDeferred("not now", "PUT 450"))
    desk.enqueue(CLIENT.values)
    await desk.done()
    first, second = desk.spans
    assert [span.name for span in desk.spans] == ["perform pay back"] * 2
    assert [span.parent for span in desk.spans] == [CLIENT] * 2
    assert (first.error, second.error) == ("SideEffectDeferred", None)
    assert [span.attributes[ORDER_ID] for span in desk.spans] == ["o-1"] * 2
    assert desk.within == [first.context, second.context]
    assert desk.acknowledged == [second.context]
    await desk.side_effects.stop()


async def test_a_rejected_one_is_seen_without_the_text_of_its_error():
    desk = Desk(SideEffectRejected("franz@example.org is unknown", "RCPT 550"))
    desk.enqueue(CLIENT.values)
    await desk.done()
    (span,) = desk.spans
    assert span.error == "SideEffectRejected"
    assert "franz" not in str(span)
    await desk.side_effects.stop()


@pytest.mark.parametrize("trace", [None, {}, {"traceparent": "junk"}, CLIENT._replace(flags=0).values])
async def test_a_row_without_a_recorded_trace_has_no_span(trace):
    desk = Desk()
    desk.enqueue(trace)
    await desk.done()
    assert desk.spans == []
    await desk.side_effects.stop()
