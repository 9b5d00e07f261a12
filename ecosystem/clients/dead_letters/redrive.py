"""Writing dead letters back to the topics they are from, each of them once.

A message and the note that it was written back (`read.REDRIVEN`) are one transaction, so there are both or neither.
All who redrive use one transactional id: whoever begins ends what another had open, and only then reads the notes. The
other one is refused at its next step.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerFenced
from aiokafka.structs import RecordMetadata

from ecosystem.clients.dead_letters.letter import DeadLetter, Where
from ecosystem.clients.dead_letters.newer import Newer
from ecosystem.clients.dead_letters.read import REDRIVEN, Redriven, key_of, letters, redriven
from ecosystem.clients.reader import partition_count
from runtime.common.partitioning import describes_misplaced, partition_of
from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.kafka.topics import ensure_topics
from runtime.model.records import Header
from schemas.topics import CATALOGUE

TRANSACTIONAL_ID = "dead-letters-redrive"

_AT_ONCE = 100
_BYTES_AT_ONCE = 4 * 1024 * 1024
_DAY_MS = 24 * 3600 * 1000

# A letter is kept for 14 days, and until its segment is rolled, seven days by default: its note must outlive it.
_CONFIG = {"cleanup.policy": "compact,delete", "retention.ms": str(60 * _DAY_MS)}


class Superseded(Exception):
    """Somebody else began to redrive. What was written until then stays written, and the other one knows of it."""


@dataclass
class Outcome:
    """What became of the letters that were wanted."""

    written: dict[Where, Redriven] = field(default_factory=dict)
    before: dict[Where, Redriven] = field(default_factory=dict)
    refused: dict[Where, str] = field(default_factory=dict)
    replaced: dict[Where, str] = field(default_factory=dict)
    """Left alone: a newer record of the same key of a compacted topic, and which one."""


async def redrive(
    settings: Settings, topic: str, wanted: Callable[[DeadLetter], bool], *, overwrite: bool = False
) -> Outcome:
    """Writes those letters of `topic` back that are there now, are wanted, and were not written back before.

    Of letters about one record, by several services that run apart, one is written back: all of them read it again.
    Key, value and headers are those of the message, and so is the partition; only what was set aside because it stood
    in another partition than its key's goes to the right one. May be repeated after any end, and run by several people
    at once. With `overwrite` also letters of which a compacted topic has a newer record.

    Raises:
        Superseded: another one has begun meanwhile.
        aiokafka.errors.KafkaError: the broker does not answer, or has no transactions.
    """
    await ensure_topics(settings, {REDRIVEN: _CONFIG})
    outcome = Outcome()
    producer = clients.transactional_producer(settings, KafkaNames(settings.topic_prefix).group(TRANSACTIONAL_ID))
    await aiokafka_internals.start_producer(producer)  # from here on nobody else's transaction is open
    try:
        done = await redriven(settings)
        there = len(await producer.partitions_for(settings.topic_prefix + topic))
        partitions = await partition_count(settings)
        newer: Newer | None = None
        if any(one.name == topic and one.retention.compacted for one in CATALOGUE):
            left = _left(settings, topic, wanted, done)
            newer = await Newer.of(settings, topic, left, partitions, overwrite=overwrite)
        first, twins = await _records_done(settings, topic, done), list[tuple[Where, Where]]()
        batch: list[DeadLetter] = []
        async for letter in _wanted(settings, topic, wanted):
            if letter.where in done:
                outcome.before[letter.where] = done[letter.where]
            elif reason := _refusal(letter, there):
                outcome.refused[letter.where] = reason
            elif (record := _record(letter)) is not None and record in first:
                twins.append((letter.where, first[record]))
            elif newer is not None and (reason := newer.than(letter)):
                outcome.replaced[letter.where] = reason
            else:
                batch.append(letter)
                if record is not None:
                    first[record] = letter.where
            if len(batch) == _AT_ONCE or sum(len(one.value or b"") for one in batch) > _BYTES_AT_ONCE:
                await _write(producer, settings, batch, partitions, outcome)
                batch = []
        await _write(producer, settings, batch, partitions, outcome)
        outcome.before |= {twin: outcome.written.get(one) or done[one] for twin, one in twins}
    except ProducerFenced as error:
        raise Superseded(
            f"somebody else has begun to redrive; {len(outcome.written)} were written back until then. "
            "Run it again: no letter is written twice"
        ) from error
    finally:
        await aiokafka_internals.stop_producer(producer)
    return outcome


_Record = tuple[int, int, bytes | None, int]
"""Where the record of a dead letter stood, its key, and the hash of its value, for a topic made anew has its offsets
anew."""


def _record(letter: DeadLetter) -> _Record | None:
    """Which record it is about; `None` if that never stood anywhere."""
    if letter.from_offset < 0:
        return None
    return letter.from_partition, letter.from_offset, letter.key, hash(letter.value)


async def _records_done(settings: Settings, topic: str, done: Mapping[Where, Redriven]) -> dict[_Record, Where]:
    """The records that were written back, each with a letter about it of which there is a note."""
    result: dict[_Record, Where] = {}
    if any(where.topic == topic for where in done):
        async for letter in _wanted(settings, topic, lambda letter: letter.where in done):
            if (record := _record(letter)) is not None:
                result[record] = letter.where
    return result


async def _wanted(settings: Settings, topic: str, wanted: Callable[[DeadLetter], bool]) -> AsyncIterator[DeadLetter]:
    async for letter in letters(settings, [topic]):
        if isinstance(letter, DeadLetter) and wanted(letter):
            yield letter


async def _left(
    settings: Settings, topic: str, wanted: Callable[[DeadLetter], bool], done: Mapping[Where, Redriven]
) -> AsyncIterator[DeadLetter]:
    """Those that may be written back."""
    async for letter in _wanted(settings, topic, wanted):
        if letter.where not in done and letter.cut is None:
            yield letter


def _refusal(letter: DeadLetter, partitions: int) -> str | None:
    """Why it can never be written back."""
    if letter.lost_until is not None:
        return "it stands for records that are gone: there is nothing to write back"
    if letter.cut is not None:
        return f"it was cut: of {letter.cut} bytes only the beginning is kept"
    if not 0 <= letter.from_partition < partitions:
        return f"it is from partition {letter.from_partition}, and there are {partitions}"
    return None


def _partition(letter: DeadLetter, partitions: int) -> int:
    """Where it is written to: whence it is, or where its key belongs if that was what was wrong with it."""
    if letter.key is not None and describes_misplaced(letter.error):
        return partition_of(letter.key, partitions)
    return letter.from_partition


async def _write(
    producer: AIOKafkaProducer, settings: Settings, batch: Sequence[DeadLetter], partitions: int, outcome: Outcome
) -> None:
    """Messages and notes in one transaction."""
    if not batch:
        return
    names = KafkaNames(settings.topic_prefix)
    at = datetime.now(UTC)
    await producer.begin_transaction()
    sent = await _send(
        producer,
        [(names.topic(one.where.topic), _partition(one, partitions), one.key, one.value, one.headers) for one in batch],
    )
    notes = {
        one.where: Redriven(partition=_partition(one, partitions), offset=offset, at=at)
        for one, offset in zip(batch, sent, strict=True)
    }
    topic = names.topic(REDRIVEN)
    of_notes = len(await producer.partitions_for(topic))
    await _send(
        producer,
        [
            (topic, partition_of(key := key_of(where), of_notes), key, note.to_json(), ())
            for where, note in notes.items()
        ],
    )
    await producer.commit_transaction()
    outcome.written |= notes


_Message = tuple[str, int, bytes | None, bytes | None, Sequence[Header]]


async def _send(producer: AIOKafkaProducer, messages: Iterable[_Message]) -> list[int]:
    """Returns their offsets, once every in-sync replica has them."""
    acks: list[asyncio.Future[RecordMetadata]] = []
    try:
        for topic, partition, key, value, headers in messages:
            acks.append(await producer.send(topic, value, key, partition=partition, headers=list(headers)))
    finally:
        await asyncio.gather(*acks, return_exceptions=True)  # asyncio complains of failures that nobody looked at
    return [ack.result().offset for ack in acks]
