"""Messages of one key and source are processed in the order they were sent, fused or through Kafka."""

import asyncio
from collections import defaultdict

import pytest
from prometheus_client import CollectorRegistry

from runtime.loop.loop import Loop
from runtime.loop.ownership import Ownership
from runtime.metrics.loop import LoopMetrics
from runtime.model.records import CONSUMED_BY, Membership, PolledBatch, Record, TopicPartition, Write
from runtime.model.service import Input, Service, Table
from runtime.state.stores import MemoryStores
from schemas.messages import CheckinRejected
from schemas.topics import CHECKIN_REJECTIONS, DAY, Topic
from tests.loops import owned_by
from tests.samples import NOON

ME = Membership(1, "me")
REASONS = Table("keeper-reasons", CheckinRejected)
NEXT = Topic("keeper-next", CheckinRejected, lambda m: m.order_no, "keeper", DAY, internal=True)
SOURCE_TP, NEXT_TP = TopicPartition(CHECKIN_REJECTIONS.name, 0), TopicPartition(NEXT.name, 0)


def append(message, ctx):
    """Appends the reason to the reasons of its key."""
    known = ctx.get(REASONS, message.order_no)
    reasons = message.reason if known is None else f"{known.reason} {message.reason}"
    ctx.put(REASONS, message.order_no, message.model_copy(update={"reason": reasons}))


KEEPER = Service(
    "keeper",
    (Input(CHECKIN_REJECTIONS, lambda message, ctx: ctx.send(NEXT, message)), Input(NEXT, append)),
    (NEXT,),
    (REASONS,),
)


class Worker:
    """A loop on a broker in memory, with a backlog of messages."""

    transactional = True

    def __init__(self, *backlog):
        self.logs = defaultdict(list)
        self.ownership, self.stores = Ownership(), MemoryStores()
        self.loop = Loop(
            owned_by(KEEPER, self.ownership, self.stores),
            self,
            clock=lambda: NOON,
            abandoned=pytest.fail,
            metrics=LoopMetrics(CollectorRegistry()),
        )
        for message in backlog:
            self.write(NEXT, message)
        self.restore()

    def restore(self):
        positions = {tp: self.ownership.positions.get(tp, 0) for tp in (SOURCE_TP, NEXT_TP)}
        stores = {(t, 0): self.stores.open(t, 0) for t in self.loop.partitions.topology.tables}
        self.ownership.acquire(ME, positions, {tp: len(self.logs[tp]) for tp in positions}, stores)

    def write(self, topic, message):
        self.logs[topic.name, 0].append(Write(topic.name, 0, topic.key(message).encode(), message.to_json()))

    async def commit(self, writes, membership):
        ends = {}
        for write in (*writes.changelog, *writes.outputs):
            tp = TopicPartition(write.topic, write.partition)
            self.logs[tp].append(write)
            ends[tp] = len(self.logs[tp]) - 1
        await asyncio.sleep(0)
        return ends

    async def flush(self):
        pass

    async def send(self, *messages):
        """Writes messages to the source, and lets the worker process them."""
        for message in messages:
            self.write(CHECKIN_REJECTIONS, message)
        await self.process(SOURCE_TP, len(messages))

    async def process(self, tp, count):
        start = self.ownership.positions[tp]
        writes = self.logs[tp][start : start + count]
        consumed_by = (CONSUMED_BY, b"keeper")
        records = [
            Record(*tp, start + n, 0, w.key, w.value) for n, w in enumerate(writes) if consumed_by not in w.headers
        ]
        assert await self.loop.step(PolledBatch(records, {tp: start + len(writes)}, ME, epoch=self.ownership.epoch))

    def reasons(self, key="k"):
        raw = self.stores.open(REASONS.name, 0).get(key.encode())
        return raw and REASONS.model.from_json(raw).reason


def message(reason, key="k"):
    return CheckinRejected(event_id="e", order_no=key, reason=reason)


async def test_messages_sent_through_kafka_during_a_backlog_are_not_overtaken_after_it():
    worker = Worker(message("0"))
    await worker.send(message("1"))
    await worker.process(NEXT_TP, 1)
    assert worker.reasons() == "0", "the backlog is processed"
    await worker.send(message("2"))
    assert worker.reasons() == "0", "1 is still in flight"
    await worker.process(NEXT_TP, 2)
    await worker.send(message("3"))

    assert worker.reasons() == "0 1 2 3"
    assert len(worker.logs[NEXT_TP]) == 3, "the last one was fused"


async def test_other_keys_are_fused_meanwhile():
    worker = Worker(message("0"))
    await worker.send(message("1"))
    await worker.process(NEXT_TP, 1)
    await worker.send(message("2", "other"))

    assert worker.reasons("other") == "2"


async def test_messages_sent_through_kafka_are_not_overtaken_within_a_batch(monkeypatch):
    monkeypatch.setattr("runtime.loop.process.MAX_DEPTH", 1)
    worker = Worker()
    await worker.send(message("1"))
    monkeypatch.setattr("runtime.loop.process.MAX_DEPTH", 32)
    await worker.send(message("2"), message("3"))
    assert worker.reasons() is None
    await worker.process(NEXT_TP, 3)

    assert worker.reasons() == "1 2 3"


async def test_a_restore_resets_the_messages_in_flight():
    worker = Worker(message("0"))
    await worker.send(message("1"))
    worker.restore()
    await worker.process(NEXT_TP, 2)
    await worker.send(message("2"))

    assert worker.reasons() == "0 1 2"
    assert len(worker.logs[NEXT_TP]) == 2
