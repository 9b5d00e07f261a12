"""Spans of batches: recorded once a batch is committed, and links between a batch and its messages."""

import pytest
from prometheus_client import CollectorRegistry

from runtime.errors import CommitFenced, CommitInDoubt
from runtime.loop.loop import Loop
from runtime.loop.ownership import Ownership
from runtime.metrics.loop import LoopMetrics
from runtime.model.records import Membership, PolledBatch, Record, TopicPartition
from runtime.state.stores import MemoryStores
from runtime.tracing.batch import BatchTracer
from runtime.tracing.spans import MAX_LINKS
from schemas.messages import StockLevel
from tests.loops import KEEPER, LEVELS, TP, owned_by
from tests.samples import NOON
from tests.traces import CLIENT, Spans

ME = Membership(1, "me")


class Worker:
    """A loop with a checkpoint that fails as told."""

    transactional = True

    def __init__(self):
        self.spans, self.errors, self.abandoned, self.end = Spans(), [], [], 0
        self.ownership, self.stores = Ownership(), MemoryStores()
        self.loop = Loop(
            owned_by(KEEPER, self.ownership, self.stores),
            self,
            clock=lambda: NOON,
            abandoned=self.abandoned.append,
            metrics=LoopMetrics(CollectorRegistry()),
            tracer=BatchTracer(self.spans.tracer()),
        )
        self.acquire()

    def acquire(self):
        tables = {(table, 0): self.stores.open(table, 0) for table in self.loop.partitions.topology.tables}
        self.ownership.acquire(ME, {TP: 0}, {}, tables)

    async def commit(self, writes, membership):
        if self.errors:
            raise self.errors.pop()
        self.end += len(writes.changelog)
        return {TopicPartition(LEVELS.changelog, 0): self.end - 1}

    async def step(self, *records, positions=True):
        polled = PolledBatch(list(records), {TP: 9} if positions else {}, ME, epoch=self.ownership.epoch)
        return await self.loop.step(polled)


def record(offset=0, context=CLIENT, value=None):
    level = StockLevel(product="mug", count=offset)
    return Record(*TP, offset, 1, b"mug", level.to_json() if value is None else value, context.headers)


async def test_a_committed_batch_has_spans_of_its_steps_and_messages():
    worker = Worker()
    assert await worker.step(record(0), record(1))
    batch = worker.spans.named("batch")[0]
    messages = worker.spans.named("process warehouse-inventory")
    assert [span.attributes["messaging.kafka.offset"] for span in messages] == [0, 1]
    assert [span.links for span in messages] == [[batch.context]] * 2
    assert [link.trace_id for link in batch.links] == [CLIENT.trace_id]
    steps = [span for span in worker.spans if span.parent == batch.context]
    assert [span.name for span in steps] == ["batch poll", "batch process", "batch commit", "batch apply"]
    assert [span.start_ns for span in steps[1:]] == [span.end_ns for span in steps[:-1]]
    assert (steps[0].start_ns, steps[-1].end_ns) == (batch.start_ns, batch.end_ns)
    assert batch.attributes["messaging.batch.message_count"] == 2
    assert steps[0].attributes == {"faust_orders.records": 2}
    assert steps[2].attributes == {"faust_orders.rows": 1, "faust_orders.outputs": 0}
    assert batch.error is None


@pytest.mark.parametrize(
    ("error", "why"), [(CommitFenced("another"), "fenced"), (CommitInDoubt("timeout"), "in_doubt")], ids=str
)
async def test_a_dropped_batch_leaves_no_span_that_says_it_took_effect(error, why):
    worker = Worker()
    worker.errors.append(error)
    assert not await worker.step(record())
    assert worker.abandoned
    assert worker.spans.named("process warehouse-inventory") == []
    (batch,) = worker.spans.named("batch")
    assert batch.error == why
    assert [span.error for span in worker.spans.named("batch commit")] == [why]
    assert worker.spans.named("batch apply") == []


async def test_the_spans_of_a_batch_that_is_processed_again_are_those_that_its_links_name():
    worker = Worker()
    worker.errors.append(CommitFenced("another"))
    await worker.step(record())
    worker.acquire()
    assert await worker.step(record())
    (message,) = worker.spans.named("process warehouse-inventory")
    dropped, committed = worker.spans.named("batch")
    assert dropped.links == committed.links == [message.context]
    assert message.links == [committed.context]


async def test_a_batch_without_recorded_traces_has_no_spans():
    worker = Worker()
    await worker.step(record(context=CLIENT._replace(flags=0)))
    assert worker.spans == []


async def test_an_unreadable_message_has_no_span():
    worker = Worker()
    await worker.step(record(value=b"junk"))
    assert worker.spans == []


async def test_links_of_a_batch_are_bounded():
    worker = Worker()
    await worker.step(*(record(n, CLIENT._replace(trace_id=f"{n + 1:032x}")) for n in range(MAX_LINKS + 10)))
    (batch,) = worker.spans.named("batch")
    assert len(batch.links) == MAX_LINKS
    assert batch.links[0].trace_id == f"{1:032x}"
    assert all(span.links == [batch.context] for span in worker.spans.named("process warehouse-inventory"))
