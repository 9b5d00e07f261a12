"""Every error of a commit has a kind: fenced, in doubt, or fatal. No batch is lost."""

import asyncio
import inspect
import logging
from datetime import UTC, datetime

import aiokafka.errors
import pytest
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry

from runtime.errors import CommitFenced, CommitInDoubt, MemberFenced
from runtime.loop.checkpoint import AtLeastOnce, ExactlyOnce, lasting
from runtime.loop.engine import Engine, EngineSettings, Ports
from runtime.loop.ownership import Ownership
from runtime.metrics.loop import LoopMetrics
from runtime.model.records import Membership, PolledBatch, Record, TopicPartition, Write, Writes
from runtime.model.topology import Topology
from runtime.model.watch import Watches
from runtime.state.stores import MemoryStores
from schemas.messages import StockLevel
from tests.loops import KEEPER, LEVELS, TP

BY_KAFKA = {c.__name__: c for c in vars(aiokafka.errors).values() if inspect.isclass(c) and issubclass(c, KafkaError)}
ERRORS = {**BY_KAFKA, **{c.__name__: c for c in (TimeoutError, OSError, ConnectionResetError, AssertionError)}}
STEPS = ("start", "transact")

# Errors of producers and transactions, classified one by one. A restore resolves each of them. Lasting ones end the
# worker after five batches in a row.
LASTING = {
    "ProducerFenced",  # a timeout, which a new producer mends, or another worker with the same transactional id
    "InvalidProducerEpoch",
    "InvalidProducerIdMapping",
    "InvalidTxnState",
    "OutOfOrderSequenceNumber",
    "DuplicateSequenceNumber",
    "ConcurrentTransactions",
    "TransactionCoordinatorFenced",
    "TransactionalIdAuthorizationFailed",
    "TopicAuthorizationFailedError",
    "GroupAuthorizationFailedError",
    "ClusterAuthorizationFailedError",
    "MessageSizeTooLargeError",
    "RecordListTooLargeError",
    "InvalidTopicError",
    "UnsupportedVersionError",
    "PolicyViolationError",
    "InvalidTransactionTimeout",
}
PASSING = {
    "NotEnoughReplicasError",
    "NotEnoughReplicasAfterAppendError",
    "NotLeaderForPartitionError",
    "LeaderNotAvailableError",
    "RequestTimedOutError",
    "KafkaConnectionError",
    "KafkaTimeoutError",
    "NodeNotReadyError",
    "GroupCoordinatorNotAvailableError",
    "NotCoordinatorForGroupError",
    "GroupLoadInProgressError",
    "UnknownTopicOrPartitionError",
    "KafkaStorageError",
    "ProducerClosed",
    "UnknownError",
    "TimeoutError",
    "OSError",
    "ConnectionResetError",
    "AssertionError",  # aiokafka: the producer is in the wrong state, so it is replaced
}


class Producer:
    """A producer that fails at one step."""

    def __init__(self, fails: dict[str, BaseException], made: list["Producer"]):
        self._fails = fails
        self.ended = False
        made.append(self)

    async def _do(self, step):
        if step in self._fails:
            raise self._fails[step] if step == "commit" else self._fails.pop(step)

    async def start(self):
        await self._do("start")

    async def send(self, *groups):
        await self._do("send")
        return {TopicPartition(w.topic, w.partition): 0 for writes in groups for w in writes}

    async def commit(self, offsets, membership):
        await self._do("commit")

    async def transact(self, groups, offsets, membership):
        await self._do("transact")
        return await self.send(*groups)

    async def end(self):
        self.ended = True


WRITES = Writes([Write(LEVELS.changelog, 0, b"k", b"v")], [], {TP: 1})
ME = Membership(1, "me")


def outcome(error):
    return CommitFenced if isinstance(error, MemberFenced) else CommitInDoubt


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", [*ERRORS, "MemberFenced"])
async def test_exactly_once_every_error_is_fenced_or_in_doubt_and_the_producer_is_replaced(name, step):
    error = MemberFenced("ILLEGAL_GENERATION") if name == "MemberFenced" else ERRORS[name]()
    fails, made = {}, []
    checkpoint = ExactlyOnce(lambda _: Producer(fails, made), timeout_s=10)
    if step != "start":
        await checkpoint.start()
    before = list(made)
    fails[step] = error
    with pytest.raises(outcome(error)) as raised:
        await checkpoint.commit(WRITES, ME)
    assert raised.value.__cause__ is error
    assert str(raised.value), "the log says why"
    if before:
        assert [p.ended for p in before].count(True) == 1
        assert len(made) == len(before) + 1
    assert await checkpoint.commit(WRITES, ME), "the next commit may follow at once"
    await checkpoint.stop()
    assert all([p.ended for p in made[len(before) or 1 :]])


@pytest.mark.parametrize("name", [*ERRORS, "MemberFenced"])
async def test_at_least_once_a_failed_offset_commit_fails_the_next_batch(name):
    error = MemberFenced("ILLEGAL_GENERATION") if name == "MemberFenced" else ERRORS[name]()
    made = []
    checkpoint = AtLeastOnce(lambda: Producer({"commit": error}, made), timeout_s=0.2)
    await checkpoint.commit(WRITES, ME)
    with pytest.raises(outcome(error)):
        await checkpoint.commit(WRITES, ME)
    assert made[0].ended


@pytest.mark.parametrize("name", [*ERRORS])
async def test_at_least_once_a_failed_send_is_in_doubt(name):
    made = []
    checkpoint = AtLeastOnce(lambda: Producer({"send": ERRORS[name]()}, made), timeout_s=10)
    with pytest.raises(CommitInDoubt):
        await checkpoint.commit(WRITES, ME)
    assert made[0].ended


async def test_a_commit_without_an_answer_is_in_doubt():
    class Silent(Producer):
        async def transact(self, groups, offsets, membership):
            await asyncio.Event().wait()

    made = []
    checkpoint = ExactlyOnce(lambda _: Silent({}, made), timeout_s=0.05)
    with pytest.raises(CommitInDoubt):
        await checkpoint.commit(WRITES, ME)
    assert made[0].ended


def test_lasting_and_passing_errors():
    assert {name for name in LASTING if not lasting(BY_KAFKA[name]())} == set()
    assert {name for name in PASSING if lasting(ERRORS[name]())} == set()
    assert not lasting(None)


# Reactions of the worker


class Client:
    """A consumer that counts rejoins."""

    def __init__(self):
        self.rejoined = 0

    def pause(self):
        pass

    def rejoin(self):
        self.rejoined += 1


class Failing:
    """A checkpoint whose commits all fail with one error."""

    transactional = True

    def __init__(self, error):
        self.error = error

    async def commit(self, writes, membership):
        if isinstance(self.error, MemberFenced):
            raise CommitFenced(str(self.error)) from self.error
        raise CommitInDoubt(repr(self.error)) from self.error


class Stuck:
    """A worker that records its retries of a restore, and gets the partition back at once."""

    def __init__(self, error):
        self.registry, self.failed, self.retries = CollectorRegistry(), [], []
        self.ownership, self.stores, self.client = Ownership(), MemoryStores(), Client()
        self.engine = Engine(
            Topology((KEEPER,)),
            EngineSettings(partitions=1, session_timeout_s=6),
            Ports(self.client, Failing(error), restorer=None, stores=self.stores, clock=lambda: datetime.now(UTC)),
            ownership=self.ownership,
            watches=Watches(),
            metrics=LoopMetrics(self.registry),
            failed=self.failed.append,
        )
        self.engine.rebalance.retry = lambda after=0.0: self.retries.append(after)

    async def batch(self):
        store = self.stores.open(LEVELS.name, 0)
        self.ownership.acquire(ME, {TP: 0}, {TP: 0}, {(LEVELS.name, 0): store})
        record = Record(TP.topic, 0, 0, 0, b"mug", StockLevel(product="mug", count=1).to_json())
        await self.engine.step(PolledBatch([record], {TP: 1}, ME, epoch=self.ownership.epoch))

    def dropped(self, kind):
        return self.registry.get_sample_value("faust_orders_batches_dropped_total", {"reason": kind}) or 0


@pytest.mark.parametrize("name", [*ERRORS, "MemberFenced"])
async def test_an_abandoned_batch_is_logged_and_counted_and_the_partitions_are_lost(name, caplog):
    error = MemberFenced("ILLEGAL_GENERATION") if name == "MemberFenced" else ERRORS[name]()
    kind = "fenced" if name == "MemberFenced" else "in_doubt"
    worker = Stuck(error)
    with caplog.at_level(logging.WARNING):
        for n in range(Engine.MOST_FAILURES):
            assert worker.failed == []
            await worker.batch()
            assert not worker.ownership.running
            assert worker.dropped(kind) == n + 1
    assert caplog.text.count(f"batch abandoned kind={kind} reason=") == Engine.MOST_FAILURES
    if name == "MemberFenced":
        assert (worker.client.rejoined, worker.retries, worker.failed) == (Engine.MOST_FAILURES, [], [])
    elif lasting(error):
        assert len(worker.retries) == Engine.MOST_FAILURES - 1
        assert [e.__cause__ for e in worker.failed] == [error]
    else:
        assert worker.failed == []
        assert worker.retries == sorted(worker.retries), "with growing pauses"
        assert len(worker.retries) == Engine.MOST_FAILURES
