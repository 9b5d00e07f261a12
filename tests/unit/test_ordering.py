"""Messages of one key and source are decided in the order they were sent, by the broker or not."""

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
HEARD = Table("keeper-heard", CheckinRejected)
NEXT = Topic("keeper-next", CheckinRejected, lambda m: m.order_no, "keeper", DAY, internal=True)
SOURCE_TP, NEXT_TP = TopicPartition(CHECKIN_REJECTIONS.name, 0), TopicPartition(NEXT.name, 0)


def hear(message, ctx):
    """Keeps all that was heard of a key, in order."""
    known = ctx.get(HEARD, message.order_no)
    heard = message.reason if known is None else f"{known.reason} {message.reason}"
    ctx.put(HEARD, message.order_no, message.model_copy(update={"reason": heard}))


KEEPER = Service(
    "keeper",
    (Input(CHECKIN_REJECTIONS, lambda message, ctx: ctx.send(NEXT, message)), Input(NEXT, hear)),
    (NEXT,),
    (HEARD,),
)


class Worker:
    """A loop on a broker in memory. It has read nothing yet, and finds what `written` says."""

    fenced = True

    def __init__(self, *written):
        self.logs = defaultdict(list)
        self.ownership, self.stores = Ownership(), MemoryStores()
        self.loop = Loop(
            owned_by(KEEPER, self.ownership, self.stores),
            self,
            clock=lambda: NOON,
            abandoned=pytest.fail,
            metrics=LoopMetrics(CollectorRegistry()),
        )
        for message in written:
            self.write(NEXT, message)
        self.take_over()

    def take_over(self):
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
        """Somebody writes to the source, and the worker reads that."""
        for message in messages:
            self.write(CHECKIN_REJECTIONS, message)
        await self.read(SOURCE_TP, len(messages))

    async def read(self, tp, count):
        start = self.ownership.positions[tp]
        found = self.logs[tp][start : start + count]
        own = (CONSUMED_BY, b"keeper")
        records = [Record(*tp, start + n, 0, w.key, w.value) for n, w in enumerate(found) if own not in w.headers]
        assert await self.loop.step(PolledBatch(records, {tp: start + len(found)}, ME, epoch=self.ownership.epoch))

    def heard(self, key="k"):
        raw = self.stores.open(HEARD.name, 0).get(key.encode())
        return raw and HEARD.model.from_json(raw).reason


def say(what, key="k"):
    return CheckinRejected(event_id="e", order_no=key, reason=what)


async def test_what_went_by_the_broker_while_there_was_a_backlog_is_not_overtaken_once_that_is_read():
    worker = Worker(say("0"))
    await worker.send(say("1"))
    await worker.read(NEXT_TP, 1)
    assert worker.heard() == "0", "the backlog found at the takeover is read"
    await worker.send(say("2"))
    assert worker.heard() == "0", "1 is on its way yet"
    await worker.read(NEXT_TP, 2)
    await worker.send(say("3"))

    assert worker.heard() == "0 1 2 3"
    assert len(worker.logs[NEXT_TP]) == 3, "the last one did not go by the broker"


async def test_other_keys_do_not_wait_for_it():
    worker = Worker(say("0"))
    await worker.send(say("1"))
    await worker.read(NEXT_TP, 1)
    await worker.send(say("2", "other"))

    assert worker.heard("other") == "2"


async def test_within_a_batch_what_goes_by_the_broker_is_not_overtaken_either(monkeypatch):
    monkeypatch.setattr("runtime.loop.process.MAX_DEPTH", 1)
    worker = Worker()
    await worker.send(say("1"))
    monkeypatch.setattr("runtime.loop.process.MAX_DEPTH", 32)
    await worker.send(say("2"), say("3"))
    assert worker.heard() is None
    await worker.read(NEXT_TP, 3)

    assert worker.heard() == "1 2 3"


async def test_a_takeover_starts_afresh():
    worker = Worker(say("0"))
    await worker.send(say("1"))
    worker.take_over()
    await worker.read(NEXT_TP, 2)
    await worker.send(say("2"))

    assert worker.heard() == "0 1 2"
    assert len(worker.logs[NEXT_TP]) == 2
