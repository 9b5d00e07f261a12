"""The runtime's own loop and handover, on a broker in memory."""

import asyncio
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from runtime.errors import CommitFenced, CommitInDoubt
from runtime.loop.loop import Loop
from runtime.loop.ownership import Ownership
from runtime.loop.rebalance import Rebalance
from runtime.metrics.loop import LoopMetrics
from runtime.model.records import Membership, PolledBatch, Record, TopicPartition, Write
from runtime.model.service import Input, Service, Table
from runtime.state.stores import MemoryStores
from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY
from tests.loops import owned_by

TP = TopicPartition(WAREHOUSE_INVENTORY.name, 0)
LEVELS = Table("keeper-levels", StockLevel)
KEEPER = Service(
    "keeper", (Input(WAREHOUSE_INVENTORY, lambda level, ctx: ctx.put(LEVELS, level.product, level)),), (), (LEVELS,)
)


class Reader:
    """The consumer: what it was told last."""

    def __init__(self):
        self.positions = None

    def hold(self):
        self.positions = None

    def read_from(self, positions):
        self.positions = dict(positions)


class Broker:
    """Changelogs and offsets, and a checkpoint whose next commits end as the test says."""

    fenced = True

    def __init__(self):
        self.offsets = {TP: 0}
        self.changelog = []
        self.fate = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, writes, membership):
        await self.gate.wait()
        fate = self.fate.pop(0) if self.fate else None
        if fate != "lost" and not isinstance(fate, CommitFenced):
            self.changelog += writes.changelog
            self.offsets.update(writes.offsets)
        if fate is not None:
            raise fate if isinstance(fate, Exception) else CommitInDoubt(fate)
        return {TopicPartition(LEVELS.changelog, 0): len(self.changelog) - 1}

    async def flush(self):
        pass

    async def committed(self, partitions):
        await asyncio.sleep(0)
        return {tp: self.offsets[tp] for tp in partitions}

    async def ends(self, partitions):
        return {tp: self.offsets[tp] for tp in partitions}

    async def restore(self, stores, progress):
        for store in stores.values():
            start = -1 if store.offset is None else store.offset
            for offset, write in enumerate(self.changelog):
                if offset > start:
                    store.apply({write.key: write.value}, offset)


class Worker:
    def __init__(self, broker, copies=None):
        metrics = LoopMetrics(CollectorRegistry())
        self.given_up = []
        self.ownership, self.stores, self.reader = Ownership(), MemoryStores(), Reader()
        partitions = owned_by(KEEPER, self.ownership, self.stores)
        self.side_effects = partitions.side_effects
        self.loop = Loop(partitions, broker, clock=lambda: datetime.now(UTC), abandoned=self._given_up, metrics=metrics)
        self.rebalance = Rebalance(
            partitions, broker, self.reader, metrics=metrics, failed=pytest.fail, standbys=copies
        )

    def _given_up(self, error):
        self.given_up.append(error)
        if isinstance(error, CommitInDoubt):
            self.rebalance.retry()

    async def assigned(self, generation):
        await self.rebalance.restore_and_resume([TP], Membership(generation, "me"))
        await self.running()

    async def running(self):
        async with asyncio.timeout(60):
            while not self.ownership.running:
                await asyncio.sleep(0)

    def step(self, offset, count, epoch=None):
        level = StockLevel(product="mug", count=count)
        record = Record(TP.topic, 0, offset, 0, b"mug", level.to_json())
        epoch = self.ownership.epoch if epoch is None else epoch
        return self.loop.step(PolledBatch([record], {TP: offset + 1}, self.ownership.membership, epoch=epoch))

    def count(self):
        raw = self.ownership.store(LEVELS.name, 0).get(b"mug")
        return raw and StockLevel.from_json(raw).count


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
async def worker(broker):
    worker = Worker(broker)
    await worker.assigned(generation=1)
    yield worker
    await worker.rebalance.stop()


@pytest.mark.parametrize(("fate", "count", "position"), [("kept", 7, 1), ("lost", None, 0)])
async def test_a_batch_whose_end_is_unknown_is_settled_by_what_the_broker_holds(broker, worker, fate, count, position):
    broker.fate = [fate]
    await worker.step(0, 7)
    assert not worker.ownership.running
    assert worker.reader.positions is None

    await worker.running()

    assert worker.count() == count
    assert worker.reader.positions == {TP: position}


async def test_a_refused_batch_is_given_up_and_nothing_is_decided_before_partitions_are_assigned_anew(broker, worker):
    broker.fate = [CommitFenced("ILLEGAL_GENERATION")]
    epoch = worker.ownership.epoch
    await worker.step(0, 7)
    await worker.step(1, 8, epoch)  # what was taken before it was known

    assert broker.changelog == []
    assert [type(e) for e in worker.given_up] == [CommitFenced]
    await worker.assigned(generation=2)
    assert worker.reader.positions == {TP: 0}


async def test_the_batch_in_hand_ends_before_partitions_go(broker, worker):
    broker.gate.clear()
    step = asyncio.create_task(worker.step(0, 7))
    await asyncio.sleep(0)
    going = asyncio.create_task(worker.rebalance.revoke(worker.loop, 10))
    await asyncio.sleep(0)
    assert not going.done()
    broker.gate.set()
    await asyncio.gather(step, going)

    assert broker.offsets == {TP: 1}
    assert not worker.ownership.running


async def test_a_batch_that_fails_while_partitions_go_does_not_take_them_back(broker, worker):
    broker.gate.clear()
    broker.fate = ["lost"]
    step = asyncio.create_task(worker.step(0, 7))
    await asyncio.sleep(0)
    going = asyncio.create_task(worker.rebalance.revoke(worker.loop, 10))
    await asyncio.sleep(0)
    broker.gate.set()
    await asyncio.gather(step, going)
    for _ in range(50):
        await asyncio.sleep(0)

    assert not worker.ownership.running
    assert worker.reader.positions is None


async def test_a_batch_that_outlasts_the_patience_is_not_applied_by_who_lost_the_partitions(broker, worker):
    broker.gate.clear()
    step = asyncio.create_task(worker.step(0, 7))
    await asyncio.sleep(0)
    await worker.rebalance.revoke(worker.loop, 0.01)
    store = worker.stores.open(LEVELS.name, 0)
    broker.gate.set()
    await step

    assert store.get(b"mug") is None, "it is in the changelog, for whoever takes over"
    await worker.assigned(generation=2)
    assert worker.count() == 7


async def test_assignments_back_to_back_end_with_the_last_one(broker, worker):
    for generation in range(2, 6):
        await worker.rebalance.restore_and_resume([TP], Membership(generation, "me"))
    await worker.running()

    assert worker.ownership.membership == Membership(5, "me")


async def test_a_takeover_that_fails_is_tried_again(broker, worker, monkeypatch):
    failures = [OSError("the broker is away"), ConnectionError("still")]
    committed = broker.committed

    async def sometimes(partitions):
        if failures:
            raise failures.pop()
        return await committed(partitions)

    monkeypatch.setattr(broker, "committed", sometimes)
    monkeypatch.setattr(Rebalance, "RETRY_S", 0.0)
    await worker.assigned(generation=2)

    assert failures == []
    assert worker.ownership.membership.generation == 2


class Copies:
    """The standby: what it was told, in order."""

    def __init__(self):
        self.told = []

    def mark_complete(self, partitions):
        self.told.append(("owned", set(partitions)))

    def follow(self, partitions):
        self.told.append(("follow", set(partitions)))


async def test_copies_are_followed_once_a_takeover_is_done_and_none_during_it(broker):
    copies = Copies()
    worker = Worker(broker, copies)
    await worker.rebalance.restore_and_resume([TP], Membership(1, "me"), {3})
    assert copies.told == [("follow", set())], "before any store is touched"
    await worker.running()
    assert copies.told == [("follow", set()), ("follow", {3})]

    copies.told.clear()
    await worker.rebalance.revoke(worker.loop, 10)
    assert copies.told == [("owned", {0})], "a copy of what goes is as good as it was"
    await worker.rebalance.restore_and_resume([], Membership(2, "me"), {0})
    await worker.running()
    assert copies.told == [("owned", {0}), ("follow", set()), ("follow", {0})]
    await worker.rebalance.stop()


async def test_stores_of_copies_stay_open(broker, monkeypatch):
    kept = []
    monkeypatch.setattr(MemoryStores, "keep", lambda _, partitions: kept.append(set(partitions)))
    worker = Worker(broker, Copies())
    await worker.rebalance.restore_and_resume([TP], Membership(1, "me"), {3})
    await worker.running()

    assert kept == [{0, 3}]
    await worker.rebalance.stop()


@pytest.mark.parametrize("fenced", [True, False])
async def test_at_least_once_rows_that_another_worker_wrote_are_not_passed_over(broker, worker, fenced):
    broker.fenced = fenced
    other = Write(LEVELS.changelog, 0, b"cup", StockLevel(product="cup", count=3).to_json())
    broker.changelog.append(other)  # by a worker that was paused, after the partitions had been taken over
    await worker.step(0, 7)

    assert worker.ownership.running is fenced, "where that cannot happen nobody looks"
    if not fenced:
        await worker.running()
        store = worker.ownership.store(LEVELS.name, 0)
        assert store.get(b"cup") == other.value
        assert worker.count() == 7


@pytest.mark.parametrize(
    ("membership", "kept"),
    [
        (Membership(2, "me"), {0}),
        (Membership(3, "me"), set()),
        (Membership(2, "me, after the group had dropped me"), set()),
    ],
)
async def test_what_was_done_outside_counts_where_nobody_else_can_have_owned_the_partition(worker, membership, kept):
    told = []
    worker.side_effects.retain = told.append
    await worker.rebalance.restore_and_resume([TP], membership)
    await worker.running()

    assert told == [kept]


async def test_effects_are_finished_before_partitions_go_and_the_loop_goes_on_meanwhile(worker):
    async def finish(patience_s):
        assert patience_s == 5
        assert await worker.step(0, 7)
        assert worker.count() == 7

    worker.side_effects.drain = finish
    await worker.rebalance.revoke(worker.loop, 10, 5)

    assert not worker.ownership.running


async def test_effects_are_not_waited_for_where_it_could_not_be_noted_that_they_are_done(worker):
    waited = []

    async def finish(patience_s):
        waited.append(patience_s)

    worker.side_effects.drain = finish
    await worker.rebalance.revoke(worker.loop, 10, 5)
    await worker.rebalance.revoke(worker.loop, 10, 5)

    assert waited[1:] == [0]
