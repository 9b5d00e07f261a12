"""The third step of the loop: what a batch decided becomes durable. Two guarantees behind one small interface."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from aiokafka.errors import KafkaError, KafkaTimeoutError, ProducerClosed, UnknownError

from runtime.common import failpoints
from runtime.common.deadlines import END_S
from runtime.errors import CommitFenced, CommitInDoubt, MemberFenced
from runtime.model.records import LastOffsets, Membership, Offsets, Write, Writes
from runtime.model.service import EFFECTS_CHANGELOG, TIMERS_CHANGELOG

log = logging.getLogger(__name__)

# aiokafka tells by AssertionError that a producer is in no state to do what it is asked.
_BROKER_ERRORS = (KafkaError, TimeoutError, OSError, AssertionError)

_WISHES = (TIMERS_CHANGELOG, EFFECTS_CHANGELOG)


# Not retriable by aiokafka's word, and yet they say no more than that the broker could not be reached, or stumbled.
_PASSING = (KafkaTimeoutError, ProducerClosed, UnknownError)


def lasting(error: BaseException | None) -> bool:
    """Whether a commit that failed with this may fail for as long as it is tried: the broker has said no to what was
    sent, or to who sent it. One answer proves nothing: a new producer mends most of it."""
    return isinstance(error, KafkaError) and not error.retriable and not isinstance(error, _PASSING)


class Checkpoint(Protocol):
    """Makes batches durable. After a failure nothing of it is left open: the next commit may follow at once.

    One that is not `fenced` also commits for a worker that has lost its partitions, which may write between others.
    """

    @property
    def fenced(self) -> bool: ...

    async def start(self) -> None: ...

    async def commit(self, writes: Writes, membership: Membership) -> LastOffsets:
        """Returns once all of `writes` is durable. Raises `CommitFenced` or `CommitInDoubt`."""

    async def flush(self) -> None:
        """Before partitions go: waits for what `commit` has left to follow, if it leaves anything."""

    async def stop(self) -> None: ...


class Producer(Protocol):
    """What a checkpoint asks of a producer. All but `end` raise `KafkaError`; one that did is ended and replaced."""

    async def start(self) -> None:
        """Leaves nothing behind if it fails."""

    async def send(self, *groups: Sequence[Write]) -> LastOffsets:
        """Returns once every in-sync replica has all of it, in the order given within each partition."""

    async def end(self) -> None:
        """Within about `END_S`, and whatever its state; what it has not sent by then, it never will."""


class TransactionalProducer(Producer, Protocol):
    """A producer of transactions. Starting it ends what an earlier one of the same id left open."""

    async def begin(self) -> None: ...

    async def send_offsets(self, offsets: Offsets, membership: Membership) -> None:
        """Adds offsets to the transaction. Raises `MemberFenced` if the membership they were taken with is over."""

    async def commit(self) -> None: ...


class ExactlyOnce:
    """One transaction a batch: changelogs, announcements and offsets become visible together or never.

    The producers take turns, so that none waits until the markers of its last transaction are written. Their ids are
    the worker's own: when it starts again, the broker ends at once what was left open.

    Arguments:
        new_producer: makes the producer of a turn, under an id of its own that stays the same.
        timeout_s: after which a commit counts as failed.
    """

    PRODUCERS = 3
    fenced = True

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
                await producer.begin()
                failpoints.reach("commit.begun")
                ends = await producer.send(writes.changelog, writes.outputs)
                failpoints.reach("commit.sent")
                # Not while producing: the coordinator would answer CONCURRENT_TRANSACTIONS.
                await producer.send_offsets(writes.offsets, membership)
                failpoints.reach("commit.offsets")
                await producer.commit()
            committed = True
        finally:
            if not committed:
                await self._abandon(turn)
        return ends

    async def flush(self) -> None:
        pass

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
        """Ends a transaction whose end is not known: a new producer of the same id makes the broker abort it, unless
        its commit was decided already. Readers of its partitions are held back for as long as it stays open."""
        producer = self._producers.pop(turn, None)
        if producer is None:
            return
        await producer.end()
        try:
            async with asyncio.timeout(END_S):
                await self._producer(turn)
        except _BROKER_ERRORS as error:  # the broker is away: it ends the transaction by its time limit
            log.warning("transaction left to its time limit error=%r", error)


class AtLeastOnce:
    """Wishes (timers, effects) first, then state, announcements, withdrawn wishes and offsets.

    Each is written once the one before is durable.

    Nobody waits for the offsets but the next batch: a crash in between has this one decided again, as any may be.

    For brokers without transactions, and for those who accept that a worker that was paused past its session may
    announce once more what its successor announced, for a few milliseconds less. A wish that is used up or withdrawn
    must not be forgotten before all that follows is durable; a new one must not come after the state that it belongs
    to, for who decides the batch again finds that state and wishes nothing.

    Arguments:
        new_producer: makes the producer.
        commit_offsets: commits offsets for the group; raises `MemberFenced`.
        timeout_s: after which a commit counts as failed.
        is_member: whether the group may still count this worker among its members, as far as the worker can know.
    """

    RETRY_S = 0.5
    fenced = False

    def __init__(
        self,
        new_producer: Callable[[], Producer],
        commit_offsets: Callable[[Offsets], Awaitable[None]],
        timeout_s: float,
        is_member: Callable[[], bool] = lambda: True,
    ) -> None:
        self._is_member = is_member
        self._new_producer = new_producer
        self._commit_offsets = commit_offsets
        self._timeout_s = timeout_s
        self._offsets: asyncio.Future[None] | None = None
        self._producer: Producer | None = None

    async def start(self) -> None:
        await self._working()

    async def commit(self, writes: Writes, membership: Membership) -> LastOffsets:
        wished = [w for w in writes.changelog if w.topic.endswith(_WISHES)]
        wishes, withdrawn = [w for w in wished if w.value is not None], [w for w in wished if w.value is None]
        state = [w for w in writes.changelog if not w.topic.endswith(_WISHES)]
        committed = False
        try:
            async with _in_time(self._timeout_s):
                ends = dict(await self._send(wishes))
                failpoints.reach("commit.wishes")
                ends |= await self._send(state)
                failpoints.reach("commit.state")
                ends |= await self._send(writes.outputs)
                failpoints.reach("commit.announced")
                ends |= await self._send(withdrawn)
                failpoints.reach("commit.timers")
                await self._offsets_committed()
                self._offsets = asyncio.ensure_future(self._keep_offsets(writes.offsets))
            committed = True
        finally:
            if not committed:
                await self.stop()
        return ends

    async def _send(self, writes: Sequence[Write]) -> LastOffsets:
        """Nothing refuses a worker that was paused past its session, so it asks itself, as late as it can."""
        producer = await self._working()
        if not self._is_member():
            raise MemberFenced("the group has not confirmed for a session that this worker is its member")
        return await producer.send(writes)

    async def _keep_offsets(self, offsets: Offsets) -> None:
        """Tries again what passes by itself: there may be no next batch for long that would."""
        while True:
            try:
                return await self._commit_offsets(offsets)
            except _BROKER_ERRORS as error:
                if lasting(error):
                    raise
                log.debug("offsets not committed, trying again error=%r", error)
            await asyncio.sleep(self.RETRY_S)

    async def flush(self) -> None:
        try:
            async with asyncio.timeout(END_S):
                await self._offsets_committed()
        except (MemberFenced, *_BROKER_ERRORS) as error:
            log.warning("offsets not committed, the last batch will be decided again error=%r", error)

    async def _offsets_committed(self) -> None:
        """Raises what kept the offsets of the batch before from being committed."""
        offsets, self._offsets = self._offsets, None
        if offsets is not None:
            await offsets

    async def _working(self) -> Producer:
        if self._producer is None:
            producer = self._new_producer()
            await producer.start()
            self._producer = producer
        return self._producer

    async def stop(self) -> None:
        await self.flush()
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.end()


@asynccontextmanager
async def _in_time(timeout_s: float) -> AsyncIterator[None]:
    """Bounds a commit, and tells by `CommitFenced` or `CommitInDoubt` how one that failed is to be taken."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except MemberFenced as error:
        raise CommitFenced(str(error)) from error
    except _BROKER_ERRORS as error:
        raise CommitInDoubt(repr(error)) from error
