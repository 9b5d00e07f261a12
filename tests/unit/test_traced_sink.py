"""Spans of batches that a sink has stored."""

import dataclasses

import pytest

from tests.sinks import SINK, Logs, MemoryDatabase, Worker
from tests.traces import CLIENT, Spans

OTHER = CLIENT._replace(trace_id="1" * 32)
SILENT = CLIENT._replace(trace_id="2" * 32, flags=0)


class TracedWorker(Worker):
    """An engine with its consumer and its spans."""

    def __init__(self, logs):
        super().__init__(logs, MemoryDatabase(), 0, 1, sink=dataclasses.replace(SINK))
        self.spans = Spans()
        self.engine._tracer = self.spans.tracer()
        self.consumer._most = 10


@pytest.fixture
def worker():
    logs = Logs()
    for context in (CLIENT, CLIENT, OTHER, SILENT):
        logs.append(0, b"a", headers=context.headers)
    logs.append(1, b"b")
    return TracedWorker(logs)


async def test_a_stored_batch_has_a_span_in_each_trace_that_it_has_records_of(worker):
    await worker.drain()
    (batch,) = worker.spans.named("store batch")
    stored = worker.spans.named("store records")
    assert batch.attributes["messaging.batch.message_count"] == 5
    assert [span.parent for span in stored] == batch.links == [CLIENT, OTHER]
    assert [span.links for span in stored] == [[batch.context]] * 2
    assert [span.attributes["messaging.batch.message_count"] for span in stored] == [2, 1]
    assert {span.service for span in worker.spans} == {"history"}


async def test_a_batch_that_was_not_stored_has_no_span(worker):
    worker.engine._database.away = True
    await worker.drain(3)
    assert worker.spans == []
    worker.engine._database.away = False
    await worker.drain()
    assert len(worker.spans.named("store batch")) == 1
