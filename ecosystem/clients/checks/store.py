"""Reads and writes the topic `required-checks`: one record in each partition.

A change is one transaction over all partitions. All changes share one transactional id: a new one first ends the open
transaction of an older one, and only then reads; the older one is fenced at its next step. So changes happen one after
the other, and no partition has a record that the others lack.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerFenced

from ecosystem.clients.checks.plan import newest
from ecosystem.clients.reader import Reader, partitions_of
from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from schemas.messages import RequiredChecks
from schemas.topics import REQUIRED_CHECKS

TRANSACTIONAL_ID = "required-checks"

VISIBLE_S = 10.0
"""Seconds until a committed record can be read: a broker writes the markers of a transaction after its commit."""
_POLL_S = 0.05


class ChecksError(Exception):
    """The required checks cannot be read or changed. The text has cause and remedy."""


@dataclass(frozen=True, slots=True)
class StoredChecks:
    """The record of each partition; `None` where there is none, or none that can be read."""

    partitions: Mapping[int, RequiredChecks | None]

    @property
    def newest(self) -> RequiredChecks | None:
        """The record that holds, or will hold once the partitions agree."""
        return newest(self.partitions.values())

    @property
    def differing(self) -> list[int]:
        """Partitions whose record is not the newest."""
        return [partition for partition, record in sorted(self.partitions.items()) if record != self.newest]


async def read(settings: Settings) -> StoredChecks:
    """Returns the records. Raises `ChecksError` if the topic does not exist, `KafkaError` if no broker answers."""
    partitions = {tp.partition for tp in await partitions_of(settings, [REQUIRED_CHECKS.name])}
    if not partitions:
        raise ChecksError(
            f"the topic {settings.topic_prefix}{REQUIRED_CHECKS.name} does not exist: start a worker of the orders "
            "service, which creates it, or check TOPIC_PREFIX"
        )
    found: dict[int, RequiredChecks | None] = dict.fromkeys(sorted(partitions))
    async with Reader(settings, [REQUIRED_CHECKS.name]) as reader:
        async for record in reader.records(from_beginning=True, follow=False, stop=asyncio.Event()):
            try:
                read_now = RequiredChecks.from_json(record.value or b"")
            except ValueError:
                continue  # workers dead-letter it, and keep the one before
            # As workers do: an outdated record has no effect.
            found[record.partition] = _later(found.get(record.partition), read_now)
    return StoredChecks(found)


async def change(settings: Settings, next_record: Callable[[StoredChecks], RequiredChecks | None]) -> StoredChecks:
    """Writes a record to every partition, and waits until it can be read. Returns what the partitions had before.

    Arguments:
        settings: broker and topic prefix.
        next_record: called with what the partitions have; returns what to write, or `None` to write nothing.

    Raises `ChecksError` if another change has begun meanwhile, `KafkaError` if no broker answers.
    """
    await read(settings)  # without the topic, before a transaction is begun
    producer = clients.transactional_producer(settings, KafkaNames(settings.topic_prefix).group(TRANSACTIONAL_ID))
    await aiokafka_internals.start_producer(producer)  # ends the open transaction of any other change
    try:
        before = await read(settings)
        record = next_record(before)
        if record is None:
            return before
        await producer.begin_transaction()
        await _send(producer, settings, record, before.partitions)
        await producer.commit_transaction()
    except ProducerFenced as error:
        raise ChecksError(
            "another change of the required checks has begun, and this one was not made: see `orders checks list`, "
            "then repeat it"
        ) from error
    finally:
        await aiokafka_internals.stop_producer(producer)
    await _visible(settings, record)
    return before


async def _send(
    producer: AIOKafkaProducer, settings: Settings, record: RequiredChecks, partitions: Iterable[int]
) -> None:
    name = settings.topic_prefix + REQUIRED_CHECKS.name
    key, value = REQUIRED_CHECKS.key(record).encode(), record.to_json()
    acks: list[asyncio.Future[object]] = []
    try:
        for partition in partitions:
            acks.append(await producer.send(name, value, key=key, partition=partition))  # noqa: PERF401  kept if one fails
    finally:
        await asyncio.gather(*acks, return_exceptions=True)  # asyncio complains of failures that nobody retrieved
    for ack in acks:
        ack.result()


async def _visible(settings: Settings, written: RequiredChecks) -> None:
    try:
        async with asyncio.timeout(VISIBLE_S):
            while True:
                if _holds(await read(settings), written):
                    return
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise ChecksError(
            f"the change is committed, but cannot be read after {VISIBLE_S:g} s: see `orders checks list`"
        ) from None


def _holds(stored: StoredChecks, written: RequiredChecks) -> bool:
    return all(record is not None and record.version >= written.version for record in stored.partitions.values())


def _later(known: RequiredChecks | None, record: RequiredChecks) -> RequiredChecks:
    return known if known is not None and record.version < known.version else record
