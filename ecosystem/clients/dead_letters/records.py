"""Reads dead letters, and the notes of those that were redriven."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from ecosystem.clients.dead_letters.dead_letter import DeadLetter, DeadLetterId, NotADeadLetter
from ecosystem.clients.reader import Reader
from runtime.common.settings import Settings
from runtime.model.records import Record
from schemas.topics import DEAD_LETTERS
from schemas.wire import Message

REDRIVE_NOTES = "dead-letters-redriven"
"""Compacted topic: key `<topic>.dead-letters/<partition>/<offset>`, value `RedriveNote`."""


class RedriveNote(Message):
    """Position and time at which a dead letter was redriven. Written in one transaction with the message."""

    partition: int
    offset: int
    at: datetime


async def read_dead_letters(
    settings: Settings, topics: Sequence[str]
) -> AsyncIterator[DeadLetter | tuple[Record, NotADeadLetter]]:
    """Yields the dead letters that these topics have now, in order within each partition, and records that are none."""
    async for record in _records(settings, [topic + DEAD_LETTERS for topic in topics]):
        try:
            yield DeadLetter.of(record)
        except NotADeadLetter as fault:
            yield record, fault


async def find_dead_letter(settings: Settings, topic: str, partition: int, offset: int) -> DeadLetter:
    """Returns the dead letter of a topic at this position. Raises `LookupError` if there is none."""
    async for found in read_dead_letters(settings, [topic]):
        if isinstance(found, DeadLetter):
            if found.id[1:] == (partition, offset):
                return found
        elif found[0][1:3] == (partition, offset):
            raise LookupError(f"{topic}{DEAD_LETTERS} {partition}@{offset} is not a dead letter: {found[1]}")
    raise LookupError(
        f"there is no dead letter {topic}{DEAD_LETTERS} {partition}@{offset}; dead letters are kept for 14 days"
    )


async def read_redrive_notes(settings: Settings) -> dict[DeadLetterId, RedriveNote]:
    """Returns the notes of all redriven dead letters that may still exist."""
    found: dict[DeadLetterId, RedriveNote] = {}
    async for record in _records(settings, [REDRIVE_NOTES]):
        if record.key is not None and record.value is not None:
            with contextlib.suppress(ValueError):  # written by somebody else
                found[_id_of(record.key)] = RedriveNote.from_json(record.value)
    return found


def note_key(id_: DeadLetterId) -> bytes:
    """Returns the key of the note for a dead letter."""
    return f"{id_.topic}{DEAD_LETTERS}/{id_.partition}/{id_.offset}".encode()


def _id_of(key: bytes) -> DeadLetterId:
    topic, partition, offset = key.decode().rsplit("/", 2)
    return DeadLetterId(topic.removesuffix(DEAD_LETTERS), int(partition), int(offset))


async def _records(settings: Settings, topics: Sequence[str]) -> AsyncIterator[Record]:
    async with Reader(settings, topics) as reader:
        if reader.found:
            async for record in reader.records(from_beginning=True, follow=False, stop=asyncio.Event()):
                yield record
