"""The third step of the loop: what a batch decided becomes durable. Two guarantees behind one small interface."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from runtime import internals, kafka
from runtime.internals import Fenced, FencedProducer
from runtime.kafka import Names
from runtime.records import Membership, Offsets, TopicPartition, Write, Writes
from runtime.service import TIMERS_CHANGELOG
from runtime.settings import Settings

log = logging.getLogger(__name__)

# aiokafka tells by AssertionError that a producer is in no state to do what it is asked.
_BROKER_ERRORS = (KafkaError, TimeoutError, OSError, AssertionError)

Ends = Mapping[TopicPartition, int]
"""Offset of the last record written to each changelog partition."""


class Refused(Exception):
    """The batch was taken by a worker that no longer owns its partitions: nothing of it is visible, nor will be."""


class Unsettled(Exception):
    """Whether the batch took effect is not known here. What the broker holds tells: take the partitions over again."""


class Checkpoint(Protocol):
    """Makes batches durable. After a failure nothing of it is left open: the next commit may follow at once."""

    async def start(self) -> None: ...

    async def commit(self, writes: Writes, membership: Membership) -> Ends:
        """Returns once all of `writes` is durable. Raises `Refused` or `Unsettled`."""

    async def flush(self) -> None:
        """Before partitions go: waits for what `commit` has left to follow, if it leaves anything."""

    async def stop(self) -> None: ...


class ExactlyOnce:
    """One transaction a batch: changelogs, announcements and offsets become visible together or never.

    The producers take turns, so that none waits until the markers of its last transaction are written. Their ids are
    the worker's own: when it starts again, the broker ends at once what was left open.
    """

    PRODUCERS = 3

    def __init__(self, settings: Settings, group: str, instance: str) -> None:
        self._settings = settings
        self._names = Names(settings.topic_prefix)
        self._group = self._names.group(group)
        self._instance = instance
        self._producers: dict[int, FencedProducer] = {}
        self._turn = 0

    async def start(self) -> None:
        await asyncio.gather(*(self._producer(turn) for turn in range(self.PRODUCERS)))

    async def commit(self, writes: Writes, membership: Membership) -> Ends:
        if not writes.offsets:
            raise ValueError("a batch without offsets cannot be fenced")
        self._turn = turn = (self._turn + 1) % self.PRODUCERS
        committed = False
        try:
            async with _in_time(self._settings):
                producer = await self._producer(turn)
                await producer.begin_transaction()
                ends = await _send(producer, self._names, writes.changelog, writes.announcements)
                # Not while producing: the coordinator would answer CONCURRENT_TRANSACTIONS.
                offsets = {self._names.physical(tp): offset for tp, offset in writes.offsets.items()}
                await producer.send_offsets(offsets, self._group, membership)
                await producer.commit_transaction()
            committed = True
        finally:
            if not committed:
                await self._abandon(turn)
        return ends

    async def flush(self) -> None:
        pass

    async def stop(self) -> None:
        producers, self._producers = self._producers, {}
        await asyncio.gather(*(internals.end(producer) for producer in producers.values()))

    async def _producer(self, turn: int) -> FencedProducer:
        producer = self._producers.get(turn)
        if producer is None:
            transactional_id = f"{self._group}-{self._instance}-{turn}"
            producer = kafka.transactional_producer(self._settings, transactional_id)
            await internals.start(producer)
            self._producers[turn] = producer
        return producer

    async def _abandon(self, turn: int) -> None:
        """Ends a transaction whose end is not known: a new producer of the same id makes the broker abort it, unless
        its commit was decided already. Readers of its partitions are held back for as long as it stays open."""
        producer = self._producers.pop(turn, None)
        if producer is None:
            return
        await internals.end(producer)
        try:
            async with asyncio.timeout(internals.END_S):
                await self._producer(turn)
        except _BROKER_ERRORS as error:  # the broker is away: it ends the transaction by its time limit
            log.warning("transaction left to its time limit error=%r", error)


class AtLeastOnce:
    """Changelogs first, then announcements, then timers, then offsets, each once the one before is durable.

    Nobody waits for the offsets but the next batch: a crash in between has this one decided again, as any may be.

    For brokers without transactions, and for those who accept that a worker that was paused past its session may
    announce once more what its successor announced, for a few milliseconds less. Timers come last as offsets do: what
    a batch has used up must not be forgotten before all that follows from it is durable.
    """

    def __init__(self, settings: Settings, commit_offsets: Callable[[Offsets], Awaitable[None]]) -> None:
        self._settings = settings
        self._names = Names(settings.topic_prefix)
        self._commit_offsets = commit_offsets
        self._offsets: asyncio.Future[None] | None = None
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        producer = kafka.producer(self._settings)
        await internals.start(producer)
        self._producer = producer

    async def commit(self, writes: Writes, membership: Membership) -> Ends:
        timers = [w for w in writes.changelog if w.topic.endswith(TIMERS_CHANGELOG)]
        state = [w for w in writes.changelog if not w.topic.endswith(TIMERS_CHANGELOG)]
        committed = False
        try:
            async with _in_time(self._settings):
                if self._producer is None:
                    await self.start()
                ends = await _send(self._producer, self._names, state)
                await _send(self._producer, self._names, writes.announcements)
                ends |= await _send(self._producer, self._names, timers)
                await self._offsets_committed()
                self._offsets = asyncio.ensure_future(self._commit_offsets(writes.offsets))
            committed = True
        finally:
            if not committed:
                await self.stop()
        return ends

    async def flush(self) -> None:
        try:
            async with asyncio.timeout(internals.END_S):
                await self._offsets_committed()
        except (Fenced, *_BROKER_ERRORS) as error:
            log.warning("offsets not committed, the last batch will be decided again error=%r", error)

    async def _offsets_committed(self) -> None:
        """Raises what kept the offsets of the batch before from being committed."""
        offsets, self._offsets = self._offsets, None
        if offsets is not None:
            await offsets

    async def stop(self) -> None:
        await self.flush()
        producer, self._producer = self._producer, None
        if producer is not None:
            await internals.end(producer)


@asynccontextmanager
async def _in_time(settings: Settings) -> AsyncIterator[None]:
    """Bounds a commit, and tells by `Refused` or `Unsettled` how one that failed is to be taken."""
    try:
        async with asyncio.timeout(settings.transaction_timeout_s):
            yield
    except Fenced as error:
        raise Refused(str(error)) from error
    except _BROKER_ERRORS as error:
        raise Unsettled(repr(error)) from error


async def _send(producer: Any, names: Names, *groups: list[Write]) -> dict[TopicPartition, int]:
    """Sends and waits for the acks. Returns the highest offset by partition.

    Whole batches are handed to aiokafka: a message on its own costs it a future and a look at its metadata.
    """
    batches: dict[TopicPartition, list[Any]] = {}
    for writes in groups:
        for topic, partition, key, value, headers in writes:
            pending = batches.setdefault(TopicPartition(topic, partition), [])
            message = {"timestamp": None, "key": key, "value": value, "headers": list(headers)}
            if not pending or pending[-1].append(**message) is None:  # none yet, or the last one is full
                pending.append(producer.create_batch())
                pending[-1].append(**message)
    sent = [(tp, batch) for tp, pending in batches.items() for batch in pending]
    acks = [await producer.send_batch(batch, names.topic(tp.topic), partition=tp.partition) for tp, batch in sent]
    ends: dict[TopicPartition, int] = {}
    for (tp, batch), ack in zip(sent, await asyncio.gather(*acks), strict=True):
        ends[tp] = max(ack.offset + batch.record_count() - 1, ends.get(tp, -1))
    return ends
