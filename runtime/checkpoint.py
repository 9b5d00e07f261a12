"""The third step of the loop: what a batch decided becomes durable. Two guarantees behind one small interface."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from runtime import kafka
from runtime.internals import Fenced, FencedProducer
from runtime.kafka import Names
from runtime.records import Membership, Offsets, TopicPartition, Write, Writes
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
    """Makes batches durable."""

    async def start(self) -> None: ...

    async def commit(self, writes: Writes, membership: Membership) -> Ends:
        """Returns once all of `writes` is durable. Raises `Refused` or `Unsettled`."""

    async def reset(self) -> None:
        """After `Refused` or `Unsettled`: ends what was left open."""

    async def stop(self) -> None: ...


class ExactlyOnce:
    """One transaction a batch: changelogs, announcements and offsets become visible together or never.

    The producers take turns, so that none waits until the markers of its last transaction are written.
    """

    PRODUCERS = 3

    def __init__(self, settings: Settings, group: str, instance: str) -> None:
        self._settings = settings
        self._names = Names(settings.topic_prefix)
        self._group = self._names.group(group)
        self._ids = [f"{self._group}-{instance}-{n}" for n in range(self.PRODUCERS)]
        self._producers: list[FencedProducer] = []
        self._turn = 0

    async def start(self) -> None:
        self._producers = [kafka.transactional_producer(self._settings, id_) for id_ in self._ids]
        await asyncio.gather(*(producer.start() for producer in self._producers))

    async def commit(self, writes: Writes, membership: Membership) -> Ends:
        if not self._producers:
            await self.start()
        self._turn = (self._turn + 1) % len(self._producers)
        producer = self._producers[self._turn]
        try:
            async with asyncio.timeout(self._settings.transaction_timeout_s):
                await producer.begin_transaction()
                ends = await _send(producer, self._names, writes.changelog, writes.announcements)
                # Not while producing: the coordinator would answer CONCURRENT_TRANSACTIONS.
                offsets = {self._names.physical(tp): offset for tp, offset in writes.offsets.items()}
                if offsets:
                    await producer.send_offsets(offsets, self._group, membership)
                await producer.commit_transaction()
        except Fenced as error:
            raise Refused(str(error)) from error
        except _BROKER_ERRORS as error:
            raise Unsettled(repr(error)) from error
        return ends

    async def reset(self) -> None:
        """New producers under the same ids: the broker ends what the old ones left open."""
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        producers, self._producers = self._producers, []
        await asyncio.gather(*(_close(producer) for producer in producers))


class AtLeastOnce:
    """Changelogs first, then announcements, then offsets, each once the one before is durable.

    For brokers without transactions, and for those who accept that a worker that was paused past its session may
    announce once more what its successor announced, for a few milliseconds less.
    """

    def __init__(self, settings: Settings, commit_offsets: Callable[[Offsets], Awaitable[None]]) -> None:
        self._settings = settings
        self._names = Names(settings.topic_prefix)
        self._commit_offsets = commit_offsets
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        self._producer = kafka.producer(self._settings)
        await self._producer.start()

    async def commit(self, writes: Writes, membership: Membership) -> Ends:
        if self._producer is None:
            await self.start()
        try:
            async with asyncio.timeout(self._settings.transaction_timeout_s):
                ends = await _send(self._producer, self._names, writes.changelog)
                await _send(self._producer, self._names, writes.announcements)
                await self._commit_offsets(writes.offsets)
        except Fenced as error:
            raise Refused(str(error)) from error
        except _BROKER_ERRORS as error:
            raise Unsettled(repr(error)) from error
        return ends

    async def reset(self) -> None:
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await _close(producer)


async def _send(producer: Any, names: Names, *groups: list[Write]) -> dict[TopicPartition, int]:
    """Sends and waits for the acks. Returns the highest offset by partition."""
    acks = [
        await producer.send(names.topic(topic), value, key=key, partition=partition, headers=list(headers))
        for writes in groups
        for topic, partition, key, value, headers in writes
    ]
    ends: dict[TopicPartition, int] = {}
    for ack in await asyncio.gather(*acks):
        tp = names.partition(ack.topic_partition)
        ends[tp] = max(ack.offset, ends.get(tp, -1))
    return ends


async def _close(producer: Any) -> None:
    """Stops a producer that may be in any state; what it left open is ended by its successor or its time limit."""
    try:
        async with asyncio.timeout(2):
            await producer.stop()
    except Exception as error:
        log.debug("producer did not stop cleanly error=%r", error)
        with contextlib.suppress(Exception):
            await producer.client.close()
