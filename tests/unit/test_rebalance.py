"""Loop and rebalances, on a broker in memory."""

import asyncio
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from prometheus_client import CollectorRegistry

from runtime.errors import CommitFenced, CommitInDoubt, RedoRejected
from runtime.loop.loop import Loop
from runtime.loop.ownership import Ownership
from runtime.loop.rebalance import Rebalance
from runtime.metrics.loop import LoopMetrics
from runtime.model.records import Membership, PolledBatch, Record, TopicPartition, Write
from runtime.state.stores import MemoryStores
from schemas.messages import StockLevel
from tests.loops import KEEPER, LEVELS, TP, owned_by


class FakePoller:
    """A poller that records its last positions."""

    def __init__(self):
        self.positions = None

    def hold(self):
        self.positions = None

    def read_from(self, positions):
        self.positions = dict(positions)


class Broker:
    """Changelogs, offsets and a checkpoint. `outcomes`: of the next commits, `committed`, `lost` or an exception."""

    transactional = True
    ahead: ClassVar[dict[TopicPartition, dict[str, int]]] = {}
    starts: frozenset[TopicPartition] = frozenset()

    def __init__(self):
        self.offsets = {TP: 0}
        self.changelog = []
        self.outcomes = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, writes, membership):
        await self.gate.wait()
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome != "lost" and not isinstance(outcome, CommitFenced):
            self.changelog += writes.changelog
            self.offsets.update(writes.offsets)
        if outcome is not None:
            raise outcome if isinstance(outcome, Exception) else CommitInDoubt(outcome)
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
    def __init__(self, broker, standbys=None):
        metrics = LoopMetrics(CollectorRegistry())
        self.abandoned = []
        self.ownership, self.stores, self.poller = Ownership(), MemoryStores(), FakePoller()
        partitions = owned_by(KEEPER, self.ownership, self.stores)
        self.side_effects = partitions.side_effects
        self.loop = Loop(
            partitions, broker, clock=lambda: datetime.now(UTC), abandoned=self._abandoned, metrics=metrics
        )
        self.rebalance = Rebalance(
            partitions, broker, self.poller, metrics=metrics, failed=pytest.fail, standbys=standbys
        )

    def _abandoned(self, error):
        self.abandoned.append(error)
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


@pytest.mark.parametrize(("outcome", "count", "position"), [("committed", 7, 1), ("lost", None, 0)])
async def test_a_batch_in_doubt_is_resolved_by_restoring_from_the_broker(broker, worker, outcome, count, position):
    broker.outcomes = [outcome]
    await worker.step(0, 7)
    assert not worker.ownership.running
    assert worker.poller.positions is None

    await worker.running()

    assert worker.count() == count
    assert worker.poller.positions == {TP: position}


async def test_after_a_fenced_batch_nothing_is_processed_before_partitions_are_assigned_again(broker, worker):
    broker.outcomes = [CommitFenced("ILLEGAL_GENERATION")]
    epoch = worker.ownership.epoch
    await worker.step(0, 7)
    await worker.step(1, 8, epoch)  # polled before the epoch ended

    assert broker.changelog == []
    assert [type(e) for e in worker.abandoned] == [CommitFenced]
    await worker.assigned(generation=2)
    assert worker.poller.positions == {TP: 0}


async def test_the_current_batch_is_finished_before_partitions_are_revoked(broker, worker):
    broker.gate.clear()
    step = asyncio.create_task(worker.step(0, 7))
    await asyncio.sleep(0)
    revocation = asyncio.create_task(worker.rebalance.revoke(worker.loop, 10))
    await asyncio.sleep(0)
    assert not revocation.done()
    broker.gate.set()
    await asyncio.gather(step, revocation)

    assert broker.offsets == {TP: 1}
    assert not worker.ownership.running


async def test_a_batch_that_fails_during_a_revocation_does_not_start_a_restore(broker, worker):
    broker.gate.clear()
    broker.outcomes = ["lost"]
    step = asyncio.create_task(worker.step(0, 7))
    await asyncio.sleep(0)
    revocation = asyncio.create_task(worker.rebalance.revoke(worker.loop, 10))
    await asyncio.sleep(0)
    broker.gate.set()
    await asyncio.gather(step, revocation)
    for _ in range(50):
        await asyncio.sleep(0)

    assert not worker.ownership.running
    assert worker.poller.positions is None


async def test_a_batch_that_exceeds_the_time_limit_of_a_revocation_is_not_applied(broker, worker):
    broker.gate.clear()
    step = asyncio.create_task(worker.step(0, 7))
    await asyncio.sleep(0)
    await worker.rebalance.revoke(worker.loop, 0.01)
    store = worker.stores.open(LEVELS.name, 0)
    broker.gate.set()
    await step

    assert store.get(b"mug") is None, "the next owner restores it from the changelog"
    await worker.assigned(generation=2)
    assert worker.count() == 7


async def test_of_assignments_back_to_back_the_last_one_counts(broker, worker):
    for generation in range(2, 6):
        await worker.rebalance.restore_and_resume([TP], Membership(generation, "me"))
    await worker.running()

    assert worker.ownership.membership == Membership(5, "me")


async def test_a_failed_restore_is_retried(broker, worker, monkeypatch):
    failures = [OSError("the broker is unavailable"), ConnectionError("still")]
    committed = broker.committed

    async def fail_twice(partitions):
        if failures:
            raise failures.pop()
        return await committed(partitions)

    monkeypatch.setattr(broker, "committed", fail_twice)
    monkeypatch.setattr(Rebalance, "RETRY_S", 0.0)
    await worker.assigned(generation=2)

    assert failures == []
    assert worker.ownership.membership.generation == 2


class FakeRedo:
    """A redo log that fails."""

    def __init__(self, error):
        self.error = error

    async def redo(self, stores, membership, positions):
        raise self.error


class SlowRedo:
    """A redo log whose token is on its way until `arrived`."""

    def __init__(self):
        self.begun, self.arrived = asyncio.Event(), asyncio.Event()

    async def redo(self, stores, membership, positions):
        self.begun.set()
        await self.settle()

    async def settle(self):
        await self.arrived.wait()


async def test_partitions_are_revoked_once_the_token_of_a_cancelled_restore_has_arrived(broker):
    worker, redo = Worker(broker), SlowRedo()
    worker.rebalance = Rebalance(
        worker.loop.partitions,
        broker,
        worker.poller,
        metrics=LoopMetrics(CollectorRegistry()),
        failed=pytest.fail,
        redo=redo,
    )
    await worker.rebalance.restore_and_resume([TP], Membership(1, "me"))
    await redo.begun.wait()
    revoked = asyncio.create_task(worker.rebalance.revoke(worker.loop, 60))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not revoked.done()
    redo.arrived.set()
    await revoked
    assert not worker.ownership.running


@pytest.mark.parametrize(
    ("error", "calls"), [(CommitFenced("ILLEGAL_GENERATION"), ["rejoin"]), (RedoRejected("too large"), ["failed"])]
)
async def test_a_worker_whose_redoing_is_fenced_rejoins_and_one_whose_redoing_is_rejected_ends(broker, error, calls):
    found = []
    worker = Worker(broker)
    worker.rebalance = Rebalance(
        worker.loop.partitions,
        broker,
        worker.poller,
        metrics=LoopMetrics(CollectorRegistry()),
        failed=lambda _: found.append("failed"),
        redo=FakeRedo(error),
        fenced=lambda: found.append("rejoin"),
    )
    await worker.rebalance.restore_and_resume([TP], Membership(1, "me"))
    await asyncio.wait({worker.rebalance._task}, timeout=60)

    assert found == calls
    assert not worker.ownership.running


class FakeStandbys:
    """Standby replicas that record their calls, in order."""

    def __init__(self):
        self.calls = []

    def mark_complete(self, partitions):
        self.calls.append(("complete", set(partitions)))

    def follow(self, partitions):
        self.calls.append(("follow", set(partitions)))


async def test_standbys_are_followed_after_a_restore_and_none_during_it(broker):
    standbys = FakeStandbys()
    worker = Worker(broker, standbys)
    await worker.rebalance.restore_and_resume([TP], Membership(1, "me"), {3})
    assert standbys.calls == [("follow", set())], "before any store is touched"
    await worker.running()
    assert standbys.calls == [("follow", set()), ("follow", {3})]

    standbys.calls.clear()
    await worker.rebalance.revoke(worker.loop, 10)
    assert standbys.calls == [("complete", {0})], "the store of a revoked partition is complete"
    await worker.rebalance.restore_and_resume([], Membership(2, "me"), {0})
    await worker.running()
    assert standbys.calls == [("complete", {0}), ("follow", set()), ("follow", {0})]
    await worker.rebalance.stop()


async def test_stores_of_standbys_stay_open(broker, monkeypatch):
    kept = []
    monkeypatch.setattr(MemoryStores, "keep", lambda _, partitions: kept.append(set(partitions)))
    worker = Worker(broker, FakeStandbys())
    await worker.rebalance.restore_and_resume([TP], Membership(1, "me"), {3})
    await worker.running()

    assert kept == [{0, 3}]
    await worker.rebalance.stop()


@pytest.mark.parametrize("transactional", [True, False])
async def test_at_least_once_rows_of_another_worker_are_not_skipped(broker, worker, transactional):
    broker.transactional = transactional
    other = Write(LEVELS.changelog, 0, b"cup", StockLevel(product="cup", count=3).to_json())
    broker.changelog.append(other)  # by a paused worker, after the partitions moved here
    await worker.step(0, 7)

    assert worker.ownership.running is transactional, "with transactions there is no other writer"
    if not transactional:
        await worker.running()
        store = worker.ownership.store(LEVELS.name, 0)
        assert store.get(b"cup") == other.value
        assert worker.count() == 7


@pytest.mark.parametrize(
    ("membership", "continued"),
    [
        (Membership(2, "me"), {0}),
        (Membership(3, "me"), set()),
        (Membership(2, "me, after the group had dropped me"), set()),
    ],
)
async def test_side_effects_continue_if_no_other_worker_can_have_owned_the_partition(worker, membership, continued):
    calls = []
    worker.side_effects.retain = calls.append
    await worker.rebalance.restore_and_resume([TP], membership)
    await worker.running()

    assert calls == [continued]


async def test_side_effects_finish_before_a_revocation_while_the_loop_runs(worker):
    async def finish(timeout_s):
        assert timeout_s == 5
        assert await worker.step(0, 7)
        assert worker.count() == 7

    worker.side_effects.drain = finish
    await worker.rebalance.revoke(worker.loop, 10, 5)

    assert not worker.ownership.running


async def test_side_effects_are_not_awaited_if_the_loop_cannot_commit_their_acknowledgement(worker):
    waited = []

    async def finish(timeout_s):
        waited.append(timeout_s)

    worker.side_effects.drain = finish
    await worker.rebalance.revoke(worker.loop, 10, 5)
    await worker.rebalance.revoke(worker.loop, 10, 5)

    assert waited[1:] == [0]
