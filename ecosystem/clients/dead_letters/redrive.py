"""Redrives dead letters: writes each back to its topic, once.

A message and its redrive note (`records.REDRIVE_NOTES`) are written in one transaction: both exist or neither. All
redrives share one transactional id. A new one first ends the open transaction of an older one, and only then reads the
notes; the older one is fenced at its next step.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerFenced
from aiokafka.structs import RecordMetadata

from ecosystem.clients.dead_letters.dead_letter import DeadLetter, DeadLetterId
from ecosystem.clients.dead_letters.records import (
    REDRIVE_NOTES,
    RedriveNote,
    note_key,
    read_dead_letters,
    read_redrive_notes,
)
from ecosystem.clients.dead_letters.replacements import Replacements
from ecosystem.clients.reader import partition_count
from runtime.common.partitioning import describes_misplaced, partition_of
from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.kafka.topics import ensure_topics
from runtime.model.records import Header
from schemas.topics import CATALOGUE

TRANSACTIONAL_ID = "dead-letters-redrive"

_MAX_BATCH = 100
"""Messages in one transaction."""
_MAX_BATCH_BYTES = 4 * 1024 * 1024
_DAY_MS = 24 * 3600 * 1000

# A dead letter is kept for 14 days, and until its segment is rolled (by default 7 days more). Its note must outlive it.
_NOTES_CONFIG = {"cleanup.policy": "compact,delete", "retention.ms": str(60 * _DAY_MS)}


class Superseded(Exception):
    """Another redrive has begun. What this one wrote until then stays written, and has notes."""


@dataclass
class RedriveOutcome:
    """What happened to the selected dead letters."""

    written: dict[DeadLetterId, RedriveNote] = field(default_factory=dict)
    written_before: dict[DeadLetterId, RedriveNote] = field(default_factory=dict)
    rejected: dict[DeadLetterId, str] = field(default_factory=dict)
    """Can never be redriven, and why."""
    replaced: dict[DeadLetterId, str] = field(default_factory=dict)
    """Left alone: their key has a newer record in a compacted topic, and which one."""


async def redrive(
    settings: Settings, topic: str, wanted: Callable[[DeadLetter], bool], *, overwrite: bool = False
) -> RedriveOutcome:
    """Redrives the dead letters of `topic` that exist now, are wanted, and were not redriven before.

    Several services that run apart may each have dead-lettered the same record. It is written back once: all of them
    read it again. Key, value, headers and partition are those of the original message; only a misplaced record goes to
    the partition of its key. May be repeated however it ended, and run by several people at once.

    Arguments:
        settings: broker and topic prefix.
        topic: of the original messages.
        wanted: selects dead letters.
        overwrite: whether to redrive also dead letters whose key has a newer record in a compacted topic.

    Raises:
        Superseded: another redrive has begun meanwhile.
        aiokafka.errors.KafkaError: the broker does not answer, or has no transactions.
    """
    await ensure_topics(settings, {REDRIVE_NOTES: _NOTES_CONFIG})
    outcome = RedriveOutcome()
    producer = clients.transactional_producer(settings, KafkaNames(settings.topic_prefix).group(TRANSACTIONAL_ID))
    await aiokafka_internals.start_producer(producer)  # ends the open transaction of any other redrive
    try:
        notes = await read_redrive_notes(settings)
        partitions_of_topic = len(await producer.partitions_for(settings.topic_prefix + topic))
        partitions = await partition_count(settings)
        replacements: Replacements | None = None
        if any(one.name == topic and one.retention.compacted for one in CATALOGUE):
            candidates = _candidates(settings, topic, wanted, notes)
            replacements = await Replacements.read(settings, topic, candidates, partitions, overwrite=overwrite)
        first = await _redriven_records(settings, topic, notes)
        duplicates: list[tuple[DeadLetterId, DeadLetterId]] = []
        batch: list[DeadLetter] = []
        async for letter in _selected(settings, topic, wanted):
            if letter.id in notes:
                outcome.written_before[letter.id] = notes[letter.id]
            elif reason := _obstacle(letter, partitions_of_topic):
                outcome.rejected[letter.id] = reason
            elif (record := _record_of(letter)) is not None and record in first:
                duplicates.append((letter.id, first[record]))
            elif replacements is not None and (reason := replacements.reason_to_skip(letter)):
                outcome.replaced[letter.id] = reason
            else:
                batch.append(letter)
                if record is not None:
                    first[record] = letter.id
            if len(batch) == _MAX_BATCH or sum(len(one.value or b"") for one in batch) > _MAX_BATCH_BYTES:
                await _write(producer, settings, batch, partitions, outcome)
                batch = []
        await _write(producer, settings, batch, partitions, outcome)
        for duplicate, original in duplicates:
            outcome.written_before[duplicate] = outcome.written.get(original) or notes[original]
    except ProducerFenced as error:
        raise Superseded(
            f"another redrive has begun; {len(outcome.written)} dead letters were written back until then. "
            "Run it again: none is written back twice"
        ) from error
    finally:
        await aiokafka_internals.stop_producer(producer)
    return outcome


_RecordId = tuple[int, int, bytes | None, int]
"""Partition, offset, key and hash of the value of the original record. A recreated topic reuses its offsets."""


def _record_of(letter: DeadLetter) -> _RecordId | None:
    """Identifies the original record; `None` if the message never was a record of the topic."""
    if letter.from_offset < 0:
        return None
    return letter.from_partition, letter.from_offset, letter.key, hash(letter.value)


async def _redriven_records(
    settings: Settings, topic: str, notes: Mapping[DeadLetterId, RedriveNote]
) -> dict[_RecordId, DeadLetterId]:
    """Returns the records that were redriven before, each with a dead letter of it that has a note."""
    result: dict[_RecordId, DeadLetterId] = {}
    if any(id_.topic == topic for id_ in notes):
        async for letter in _selected(settings, topic, lambda letter: letter.id in notes):
            if (record := _record_of(letter)) is not None:
                result[record] = letter.id
    return result


async def _selected(settings: Settings, topic: str, wanted: Callable[[DeadLetter], bool]) -> AsyncIterator[DeadLetter]:
    async for letter in read_dead_letters(settings, [topic]):
        if isinstance(letter, DeadLetter) and wanted(letter):
            yield letter


async def _candidates(
    settings: Settings, topic: str, wanted: Callable[[DeadLetter], bool], notes: Mapping[DeadLetterId, RedriveNote]
) -> AsyncIterator[DeadLetter]:
    """Yields the selected dead letters that may be redriven."""
    async for letter in _selected(settings, topic, wanted):
        if letter.id not in notes and letter.truncated is None:
            yield letter


def _obstacle(letter: DeadLetter, partitions: int) -> str | None:
    """Says why a dead letter can never be redriven."""
    if letter.lost_until is not None:
        return "it stands for lost records: there is nothing to write back"
    if letter.truncated is not None:
        return f"it was truncated: of {letter.truncated} bytes only the beginning is kept"
    if not 0 <= letter.from_partition < partitions:
        return f"it is from partition {letter.from_partition}, and its topic has {partitions}"
    return None


def _target_partition(letter: DeadLetter, partitions: int) -> int:
    """Returns the original partition, or that of the key if the record was misplaced."""
    if letter.key is not None and describes_misplaced(letter.error):
        return partition_of(letter.key, partitions)
    return letter.from_partition


async def _write(
    producer: AIOKafkaProducer,
    settings: Settings,
    batch: Sequence[DeadLetter],
    partitions: int,
    outcome: RedriveOutcome,
) -> None:
    """Writes messages and notes in one transaction."""
    if not batch:
        return
    names = KafkaNames(settings.topic_prefix)
    at = datetime.now(UTC)
    targets = [_target_partition(letter, partitions) for letter in batch]
    await producer.begin_transaction()
    offsets = await _send(
        producer,
        [
            (names.topic(letter.id.topic), target, letter.key, letter.value, letter.headers)
            for letter, target in zip(batch, targets, strict=True)
        ],
    )
    notes = {
        letter.id: RedriveNote(partition=target, offset=offset, at=at)
        for letter, target, offset in zip(batch, targets, offsets, strict=True)
    }
    topic = names.topic(REDRIVE_NOTES)
    note_partitions = len(await producer.partitions_for(topic))
    await _send(
        producer,
        [
            (topic, partition_of(key := note_key(id_), note_partitions), key, note.to_json(), ())
            for id_, note in notes.items()
        ],
    )
    await producer.commit_transaction()
    outcome.written |= notes


_Message = tuple[str, int, bytes | None, bytes | None, Sequence[Header]]


async def _send(producer: AIOKafkaProducer, messages: Iterable[_Message]) -> list[int]:
    """Sends messages. Returns their offsets once every in-sync replica has them."""
    acks: list[asyncio.Future[RecordMetadata]] = []
    try:
        for topic, partition, key, value, headers in messages:
            acks.append(await producer.send(topic, value, key, partition=partition, headers=list(headers)))
    finally:
        await asyncio.gather(*acks, return_exceptions=True)  # asyncio complains of failures that nobody retrieved
    return [ack.result().offset for ack in acks]
