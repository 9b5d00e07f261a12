"""Every error that may end a commit is of a kind, and no batch is dropped: refused, asked about, or fatal."""

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
from tests.unit.test_rebalance import KEEPER, LEVELS, TP

BY_KAFKA = {c.__name__: c for c in vars(aiokafka.errors).values() if inspect.isclass(c) and issubclass(c, KafkaError)}
ERRORS = {**BY_KAFKA, **{c.__name__: c for c in (TimeoutError, OSError, ConnectionResetError, AssertionError)}}
STEPS = ("start", "begin", "send", "send_offsets", "commit")

# Of the producer and of transactions: what each may mean for a batch was looked at one by one. All are settled by a
# takeover; those that last end the worker once five batches in a row have met them.
LASTING = {
    "ProducerFenced",  # timed out, or another worker has the same name: a new producer mends the one, not the other
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
    "AssertionError",  # by which aiokafka says that a producer is in no state for this: it is replaced
}


class Producer:
    """Fails at one step, and notes what became of it."""

    def __init__(self, fails: dict[str, BaseException], made: list["Producer"]):
        self._fails = fails
        self.ended = False
        made.append(self)

    async def _do(self, step):
        if step in self._fails:
            raise self._fails.pop(step)

    async def start(self):
        await self._do("start")

    async def begin(self):
        await self._do("begin")

    async def send(self, *groups):
        await self._do("send")
        return {TopicPartition(w.topic, w.partition): 0 for writes in groups for w in writes}

    async def send_offsets(self, offsets, membership):
        await self._do("send_offsets")

    async def commit(self):
        await self._do("commit")

    async def end(self):
        self.ended = True


WRITES = Writes([Write(LEVELS.changelog, 0, b"k", b"v")], [], {TP: 1})
ME = Membership(1, "me")


def outcome(error):
    return CommitFenced if isinstance(error, MemberFenced) else CommitInDoubt


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", [*ERRORS, "MemberFenced"])
async def test_exactly_once_whatever_fails_is_refused_or_asked_about_and_the_producer_replaced(name, step):
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
async def test_at_least_once_offsets_that_fail_give_up_the_next_batch(name):
    error = MemberFenced("ILLEGAL_GENERATION") if name == "MemberFenced" else ERRORS[name]()

    async def commit_offsets(_):
        raise error

    made = []
    checkpoint = AtLeastOnce(lambda: Producer({}, made), commit_offsets, timeout_s=0.2)
    await checkpoint.commit(WRITES, ME)
    with pytest.raises(outcome(error)):
        await checkpoint.commit(WRITES, ME)
    assert made[0].ended


@pytest.mark.parametrize("name", [*ERRORS])
async def test_at_least_once_a_send_that_fails_is_asked_about(name):
    made = []
    checkpoint = AtLeastOnce(lambda: Producer({"send": ERRORS[name]()}, made), lambda _: asyncio.sleep(0), timeout_s=10)
    with pytest.raises(CommitInDoubt):
        await checkpoint.commit(WRITES, ME)
    assert made[0].ended


async def test_a_commit_that_is_not_answered_is_asked_about():
    class Silent(Producer):
        async def commit(self):
            await asyncio.Event().wait()

    made = []
    checkpoint = ExactlyOnce(lambda _: Silent({}, made), timeout_s=0.05)
    with pytest.raises(CommitInDoubt):
        await checkpoint.commit(WRITES, ME)
    assert made[0].ended


def test_what_may_last_and_what_passes():
    assert {name for name in LASTING if not lasting(BY_KAFKA[name]())} == set()
    assert {name for name in PASSING if lasting(ERRORS[name]())} == set()
    assert not lasting(None)


# What follows in the worker


class Client:
    """A consumer of which only this is asked here."""

    def __init__(self):
        self.rejoined = 0

    def pause(self):
        pass

    def rejoin(self):
        self.rejoined += 1


class Failing:
    """A checkpoint whose commits all fail with the same."""

    def __init__(self, error):
        self.error = error

    async def commit(self, writes, membership):
        if isinstance(self.error, MemberFenced):
            raise CommitFenced(str(self.error)) from self.error
        raise CommitInDoubt(repr(self.error)) from self.error


class Stuck:
    """A worker that takes over at once what it is to take over again."""

    def __init__(self, error):
        self.registry, self.failed, self.again = CollectorRegistry(), [], []
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
        self.engine.rebalance.retry = lambda after=0.0: self.again.append(after)

    async def batch(self):
        store = self.stores.open(LEVELS.name, 0)
        self.ownership.acquire(ME, {TP: 0}, {TP: 0}, {(LEVELS.name, 0): store})
        record = Record(TP.topic, 0, 0, 0, b"mug", StockLevel(product="mug", count=1).to_json())
        await self.engine.step(PolledBatch([record], {TP: 1}, ME, epoch=self.ownership.epoch))

    def given_up(self, kind):
        return self.registry.get_sample_value("faust_orders_batches_dropped_total", {"reason": kind}) or 0


@pytest.mark.parametrize("name", [*ERRORS, "MemberFenced"])
async def test_a_batch_that_is_given_up_is_told_and_counted_and_nothing_passes_over_it(name, caplog):
    error = MemberFenced("ILLEGAL_GENERATION") if name == "MemberFenced" else ERRORS[name]()
    kind = "fenced" if name == "MemberFenced" else "in_doubt"
    worker = Stuck(error)
    with caplog.at_level(logging.WARNING):
        for n in range(Engine.MOST_FAILURES):
            assert worker.failed == []
            await worker.batch()
            assert not worker.ownership.running
            assert worker.given_up(kind) == n + 1
    assert caplog.text.count(f"batch abandoned kind={kind} reason=") == Engine.MOST_FAILURES
    if name == "MemberFenced":
        assert (worker.client.rejoined, worker.again, worker.failed) == (Engine.MOST_FAILURES, [], [])
    elif lasting(error):
        assert len(worker.again) == Engine.MOST_FAILURES - 1
        assert [e.__cause__ for e in worker.failed] == [error]
    else:
        assert worker.failed == []
        assert worker.again == sorted(worker.again), "with longer and longer pauses"
        assert len(worker.again) == Engine.MOST_FAILURES
