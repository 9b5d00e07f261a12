"""Makes processed batches durable: exactly once or at least once, behind one interface."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from aiokafka.errors import KafkaError, KafkaTimeoutError, ProducerClosed, UnknownError

from runtime.common import failpoints
from runtime.common.backoff import Backoff, retry
from runtime.common.deadlines import PRODUCER_STOP_S
from runtime.errors import CommitFenced, CommitInDoubt, MemberFenced
from runtime.model.records import LastOffsets, Membership, Offsets, Write, Writes
from runtime.model.redo_progress import RedoProgress

log = logging.getLogger(__name__)

# aiokafka raises AssertionError when a producer is in the wrong state for a call.
_BROKER_ERRORS = (KafkaError, TimeoutError, OSError, AssertionError)

# Not retriable for aiokafka, though they only mean that the broker was not reached, or failed for a moment.
_PASSING = (KafkaTimeoutError, ProducerClosed, UnknownError)


def lasting(error: BaseException | None) -> bool:
    """Whether every retry of a commit may fail like this: the broker rejects its records or the sender.

    A single such error proves nothing: most of them do not recur with a new producer.
    """
    return isinstance(error, KafkaError) and not error.retriable and not isinstance(error, _PASSING)


class Checkpoint(Protocol):
    """Makes batches durable. After a failure nothing is left open: the next commit may follow at once.

    A checkpoint that is not `transactional` needs redo records: a crash leaves a part of a batch. It may also commit
    for a worker that has lost its partitions, among the records of the new owner.
    """

    @property
    def transactional(self) -> bool: ...

    async def start(self) -> None: ...

    async def commit(self, writes: Writes, membership: Membership) -> LastOffsets:
        """Returns once all of `writes` is durable, with the last offset written to each partition.

        Raises `CommitFenced` or `CommitInDoubt`.
        """

    async def flush(self) -> LastOffsets:
        """Waits until all of the last batch is finished, before partitions are revoked.

        Returns the last offset of each partition that was written to since the commit.
        """

    async def stop(self) -> None: ...


class Producer(Protocol):
    """The producer of a checkpoint.

    All methods but `end` raise `KafkaError`. The checkpoint then ends the producer and replaces it.
    """

    async def start(self) -> None:
        """Starts. Leaves nothing behind if it fails."""

    async def send(self, *groups: Sequence[Write]) -> LastOffsets:
        """Returns once every in-sync replica has all writes, in the given order within each partition.

        One call at a time.
        """

    async def commit(self, offsets: Offsets, membership: Membership) -> None:
        """Commits offsets for the group of the worker, also while records are sent.

        Arguments:
            offsets: the next offset to read of each partition.
            membership: with which they were polled. Raises `MemberFenced` if it is no longer valid.
        """

    async def end(self) -> None:
        """Stops within about `PRODUCER_STOP_S`, in whatever state it is. Unsent records are dropped for good."""


class TransactionalProducer(Protocol):
    """A transactional producer. Its start aborts the open transaction of an earlier one with the same id.

    All methods but `end` raise `KafkaError`. The checkpoint then ends the producer and replaces it.
    """

    async def start(self) -> None:
        """Starts. Leaves nothing behind if it fails."""

    async def transact(
        self, groups: Sequence[Sequence[Write]], offsets: Offsets, membership: Membership
    ) -> LastOffsets:
        """Commits all writes and offsets, or nothing. Returns the last offset written to each partition.

        Arguments:
            groups: writes, in the given order within each partition.
            offsets: committed for the group of the worker.
            membership: with which the offsets were polled. Raises `MemberFenced` if it is no longer valid.
        """

    async def end(self) -> None:
        """Stops within about `PRODUCER_STOP_S`, in whatever state it is. Unsent records are dropped for good."""


class ExactlyOnce:
    """Commits changelogs, output records and offsets of a batch in one transaction.

    Several producers take turns, so that no batch waits for the markers of the transaction before it. Their
    transactional ids belong to the worker: when it restarts, the broker aborts its open transactions at once.

    Arguments:
        new_producer: creates the producer of a turn, with a transactional id that stays the same.
        timeout_s: seconds after which a commit has failed.
    """

    PRODUCERS = 3
    transactional = True

    def __init__(self, new_producer: Callable[[int], TransactionalProducer], timeout_s: float) -> None:
        self._new_producer = new_producer
        self._timeout_s = timeout_s
        self._producers: dict[int, TransactionalProducer] = {}
        self._turn = 0

    async def start(self) -> None:
        await asyncio.gather(*(self._producer(turn) for turn in range(self.PRODUCERS)))

    async def commit(self, writes: Writes, membership: Membership) -> LastOffsets:
        if not writes.offsets:
            raise ValueError("a batch without offsets cannot be fenced")
        self._turn = turn = (self._turn + 1) % self.PRODUCERS
        committed = False
        try:
            async with _in_time(self._timeout_s):
                producer = await self._producer(turn)
                failpoints.reach("commit.begun")
                ends = await producer.transact((writes.changelog, writes.outputs), writes.offsets, membership)
            committed = True
        finally:
            if not committed:
                await self._abandon(turn)
        return ends

    async def flush(self) -> LastOffsets:
        return {}

    async def stop(self) -> None:
        producers, self._producers = self._producers, {}
        await asyncio.gather(*(producer.end() for producer in producers.values()))

    async def _producer(self, turn: int) -> TransactionalProducer:
        producer = self._producers.get(turn)
        if producer is None:
            producer = self._new_producer(turn)
            await producer.start()
            self._producers[turn] = producer
        return producer

    async def _abandon(self, turn: int) -> None:
        """Replaces the producer of a transaction in doubt.

        The start of the new producer makes the broker abort the transaction unless its commit is already decided. An
        open transaction holds back the readers of its partitions.
        """
        producer = self._producers.pop(turn, None)
        if producer is None:
            return
        await producer.end()
        try:
            async with asyncio.timeout(PRODUCER_STOP_S):
                await self._producer(turn)
        except _BROKER_ERRORS as error:  # unavailable: the broker aborts the transaction after its time limit
            log.warning("open transaction left to its timeout error=%r", error)


class AtLeastOnce:
    """Commits a batch in two round trips: its redo records, then rows and output records.

    1. Redo records: all rows and sent records, by service and partition. From here on a crash loses nothing: the next
       restore redoes a redo record that is left over (`runtime.loop.redo`).
    2. Rows and output records, in any order.
    3. Offsets. The next batch waits for them at its end.

    The redo records of the next batch overwrite those of this one, and go with the tombstones of the others: so when
    the next batch writes its rows, no redo record of this one is left. Without a next batch they are cleared soon.

    For brokers without transactions, or for a few milliseconds less per batch. A worker that was paused past its
    session may produce output records again that the new owner has produced.

    Arguments:
        new_producer: creates the producer.
        timeout_s: seconds after which a commit has failed.
        is_member: whether this worker may still be a member of its group, as far as it knows.
    """

    RETRY_S = 0.5
    CLEAR_S = 0.2
    """Seconds without a batch after which redo records are cleared: longer than from batch to batch under load, when
    responses to hundreds of clients are in between. A crash before it has the last batch redone."""
    transactional = False

    def __init__(
        self,
        new_producer: Callable[[], Producer],
        timeout_s: float,
        is_member: Callable[[], bool] = lambda: True,
    ) -> None:
        self._is_member = is_member
        self._new_producer = new_producer
        self._timeout_s = timeout_s
        self._progress: RedoProgress | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._cleared: asyncio.Future[LastOffsets] | None = None
        self._offsets: asyncio.Future[None] | None = None
        self._producer: Producer | None = None

    async def start(self) -> None:
        await self._usable_producer()

    async def commit(self, writes: Writes, membership: Membership) -> LastOffsets:
        committed = False
        try:
            async with _in_time(self._timeout_s):
                self._stop_clearing()
                ends = dict(await self._redo_records_cleared())
                ends |= await self._write_redo_records(writes)
                ends |= await self._send(writes.changelog, writes.outputs)
                if writes.redo:
                    failpoints.reach("commit.written")
                await self._offsets_committed()
                if writes.offsets:
                    self._offsets = asyncio.ensure_future(self._commit_offsets(writes.offsets, membership))
                if writes.redo:
                    self._idle = asyncio.get_running_loop().call_later(self.CLEAR_S, self._begin_clearing)
            committed = True
        finally:
            if not committed:
                self._progress = None  # a tombstone may have the key of a redo record of the failed batch
                await self.stop()
        return ends

    async def _write_redo_records(self, writes: Writes) -> LastOffsets:
        """Writes the redo records of a batch, and the tombstones of those before it that they do not overwrite."""
        self._progress = progress = writes.redo_progress or self._progress
        if progress is None or not (redo := progress.next(writes.redo)):
            return {}
        ends = await self._send(redo)
        if writes.redo:
            failpoints.reach("commit.redo")
        if not progress.wrote(redo, ends):
            raise CommitInDoubt("another worker wrote to a redo table, its redo records may not count")
        return ends

    def _begin_clearing(self) -> None:
        """Clears the redo records of the last batch: no other batch has come for a while, or none will."""
        self._stop_clearing()
        if self._progress is not None and self._cleared is None:
            self._cleared = asyncio.ensure_future(self._clear(self._progress))

    def _stop_clearing(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    async def _clear(self, progress: RedoProgress) -> LastOffsets:
        if not (tombstones := progress.next(())):
            return {}
        ends = await self._send(tombstones)
        progress.wrote(tombstones, ends)  # if another worker wrote there, the next batch finds it
        failpoints.reach("commit.cleared")
        return ends

    async def _send(self, *groups: Sequence[Write]) -> LastOffsets:
        """Sends the writes. Raises `MemberFenced` after a pause past the session: the broker does not fence."""
        if not any(groups):
            return {}
        producer = await self._usable_producer()
        if not self._is_member():
            raise MemberFenced("the group has not confirmed for a session that this worker is its member")
        return await producer.send(*groups)

    async def _commit_offsets(self, offsets: Offsets, membership: Membership) -> None:
        """Commits offsets, and retries passing errors: the next batch may be long in coming."""
        producer = await self._usable_producer()
        await retry(
            lambda: producer.commit(offsets, membership),
            Backoff(self.RETRY_S),
            passes=lambda error: isinstance(error, _BROKER_ERRORS) and not lasting(error),
            report=lambda error: log.debug("offset commit failed, retrying error=%r", error),
        )

    async def flush(self) -> LastOffsets:
        ends: LastOffsets = {}
        try:
            async with asyncio.timeout(PRODUCER_STOP_S):
                self._begin_clearing()
                ends = await self._redo_records_cleared()
                await self._offsets_committed()
        except (MemberFenced, *_BROKER_ERRORS) as error:
            log.warning("last batch not finished, it will be redone or processed again error=%r", error)
        return ends

    async def _redo_records_cleared(self) -> LastOffsets:
        """Waits until tombstones on their way are written, and raises the error."""
        if self._cleared is None:
            return {}
        ends = await asyncio.shield(self._cleared)  # a write that is cancelled makes the producer useless
        self._cleared = None
        return ends

    async def _offsets_committed(self) -> None:
        """Waits for the offset commit of the batch before, and raises its error."""
        offsets, self._offsets = self._offsets, None
        if offsets is not None:
            await offsets

    async def _usable_producer(self) -> Producer:
        if self._producer is None:
            producer = self._new_producer()
            await producer.start()
            self._producer = producer
        return self._producer

    async def stop(self) -> None:
        await self.flush()
        unfinished = [task for task in (self._offsets, self._cleared) if task is not None]
        self._progress = self._offsets = self._cleared = None
        for task in unfinished:
            task.cancel()
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.end()


@asynccontextmanager
async def _in_time(timeout_s: float) -> AsyncIterator[None]:
    """Bounds a commit, and raises its errors as `CommitFenced` or `CommitInDoubt`."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except MemberFenced as error:
        raise CommitFenced(str(error)) from error
    except _BROKER_ERRORS as error:
        raise CommitInDoubt(repr(error)) from error
