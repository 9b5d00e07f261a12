"""Redrives dead letters: writes each back to its topic, once.

A message and its redrive note (`records.REDRIVE_NOTES`) are written in one transaction: both exist or neither. All
redrives share one transactional id. A new one first ends the open transaction of an older one, and only then reads the
notes; the older one is fenced at its next step.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerFenced
from aiokafka.structs import RecordMetadata

from ecosystem.clients.dead_letters.dead_letter import DeadLetter
from ecosystem.clients.dead_letters.outcome import DEFAULT_RULES, RedriveOutcome, Rules, Wanted, decide, selected
from ecosystem.clients.dead_letters.records import REDRIVE_NOTES, RedriveNote, note_key
from ecosystem.clients.pace import Pace
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.kafka.topics import ensure_topics
from runtime.model.records import Header

TRANSACTIONAL_ID = "dead-letters-redrive"

_MAX_BATCH = 100
"""Messages in one transaction."""
_MAX_BATCH_BYTES = 4 * 1024 * 1024
_DAY_MS = 24 * 3600 * 1000

# A dead letter is kept for 14 days, and until its segment is rolled (by default 7 days more). Its note must outlive it.
_NOTES_CONFIG = {"cleanup.policy": "compact,delete", "retention.ms": str(60 * _DAY_MS)}


class Superseded(Exception):
    """Another redrive has begun. What this one wrote until then stays written, and has notes."""


async def preview(settings: Settings, topic: str, wanted: Wanted, rules: Rules = DEFAULT_RULES) -> RedriveOutcome:
    """Returns what a redrive would write. Writes nothing, and disturbs no redrive that runs."""
    outcome = RedriveOutcome()
    await decide(settings, topic, wanted, rules, outcome)
    return outcome


async def redrive(
    settings: Settings,
    topic: str,
    wanted: Wanted,
    rules: Rules = DEFAULT_RULES,
    *,
    pace: Pace | None = None,
    stop: asyncio.Event | None = None,
    progress: Callable[[str, int, int | None], None] = lambda doing, done, total: None,
    outcome: RedriveOutcome | None = None,
) -> RedriveOutcome:
    """Redrives the dead letters of `topic` that exist now, are wanted, and were not redriven before.

    Several services that run apart may each have dead-lettered the same record. It is written back once: all of them
    read it again. Key, value, headers and partition are those of the original message, and a header counts its
    redrives; only a misplaced record goes to the partition of its key. May be repeated however it ended, and run by
    several people at once.

    Arguments:
        settings: broker and topic prefix.
        topic: of the original messages.
        wanted: selects dead letters.
        rules: what may be written.
        pace: the rate; `None`: as fast as the broker acknowledges.
        stop: ends it after the present batch.
        progress: is called with what is done now, how much of it, and of how much.
        outcome: tells what happened, however this ends; it is returned.

    Raises:
        Superseded: another redrive has begun meanwhile.
        aiokafka.errors.KafkaError: the broker does not answer, or has no transactions.
    """
    await ensure_topics(settings, {REDRIVE_NOTES: _NOTES_CONFIG})
    outcome = RedriveOutcome() if outcome is None else outcome
    pace = Pace(None) if pace is None else pace
    producer = clients.transactional_producer(settings, KafkaNames(settings.topic_prefix).group(TRANSACTIONAL_ID))
    await aiokafka_internals.start_producer(producer)  # ends the open transaction of any other redrive
    try:
        progress("reading", 0, None)
        await decide(settings, topic, wanted, rules, outcome)
        await _write_all(producer, settings, topic, pace, stop or asyncio.Event(), progress, outcome)
        if stop is None or not stop.is_set():
            for id_ in outcome.waiting:
                outcome.rejected[id_] = "it expired while this command ran"
                del outcome.targets[id_]
        for duplicate, original in outcome.duplicates.items():
            if original in outcome.written:
                outcome.written_before[duplicate] = outcome.written[original]
    except ProducerFenced as error:
        raise Superseded(
            f"another redrive has begun; {len(outcome.written)} dead letters were written back until then. "
            "Run it again: none is written back twice"
        ) from error
    finally:
        await aiokafka_internals.stop_producer(producer)
    return outcome


async def _write_all(
    producer: AIOKafkaProducer,
    settings: Settings,
    topic: str,
    pace: Pace,
    stop: asyncio.Event,
    progress: Callable[[str, int, int | None], None],
    outcome: RedriveOutcome,
) -> None:
    """Writes the dead letters that are to be written, in batches."""
    size, total = min(_MAX_BATCH, pace.batch), len(outcome.targets)
    batch: list[DeadLetter] = []

    async def write() -> None:
        await pace.wait(len(batch))
        if not stop.is_set():
            await _write(producer, settings, batch, outcome)
            progress("writing back", len(outcome.written), total)
        batch.clear()

    if total:
        progress("writing back", 0, total)
        async for letter in selected(settings, topic, lambda letter: letter.id in outcome.targets):
            batch.append(letter)
            if len(batch) == size or sum(len(one.value or b"") for one in batch) > _MAX_BATCH_BYTES:
                await write()
                if stop.is_set():
                    return
    if batch:
        await write()


async def _write(
    producer: AIOKafkaProducer, settings: Settings, batch: Sequence[DeadLetter], outcome: RedriveOutcome
) -> None:
    """Writes messages and notes in one transaction."""
    names = KafkaNames(settings.topic_prefix)
    at = datetime.now(UTC)
    targets = [outcome.targets[letter.id] for letter in batch]
    await producer.begin_transaction()
    offsets = await _send(
        producer,
        [
            (
                names.topic(letter.id.topic),
                target.partition,
                letter.key,
                letter.value,
                letter.redriven_headers(target.count),
            )
            for letter, target in zip(batch, targets, strict=True)
        ],
    )
    notes = {
        letter.id: RedriveNote(partition=target.partition, offset=offset, at=at)
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
