"""Reading dead letters, and which of them were written back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from ecosystem import services
from ecosystem.clients.dead_letters.letter import DeadLetter, NotADeadLetter, Where
from ecosystem.clients.reader import Reader
from runtime.common.settings import Settings
from runtime.model.records import Record
from runtime.model.topology import Topology
from schemas.topics import CATALOGUE, DEAD_LETTERS
from schemas.wire import Message

REDRIVEN = "dead-letters-redriven"
"""Compacted topic of what was written back: key `<topic>.dead-letters/<partition>/<offset>`, value `Redriven`."""


class Redriven(Message):
    """That a letter was written back: where to, and when. Written in one transaction with the message."""

    partition: int
    offset: int
    at: datetime


def topics(settings: Settings) -> list[str]:
    """Every topic that may have dead letters, those between the parts of a service included."""
    plan = Topology(tuple(hosted.service for hosted in services.build(services.NAMES, settings)))
    return list(dict.fromkeys([*(topic.name for topic in CATALOGUE), *plan.consumed]))


def changelogs(settings: Settings) -> list[str]:
    """The changelogs of all services: one that has lost records has dead letters that say so."""
    plan = Topology(tuple(hosted.service for hosted in services.build(services.NAMES, settings)))
    return [table.changelog for table in plan.tables.values()]


async def letters(
    settings: Settings, names: Sequence[str]
) -> AsyncIterator[DeadLetter | tuple[Record, NotADeadLetter]]:
    """Every dead letter of these topics that is there now, in order within each partition; and what is none."""
    async for record in _records(settings, [name + DEAD_LETTERS for name in names]):
        try:
            yield DeadLetter.of(record)
        except NotADeadLetter as fault:
            yield record, fault


async def letter(settings: Settings, name: str, partition: int, offset: int) -> DeadLetter:
    """The dead letter of a topic that stands there. Raises `LookupError` if there is none."""
    async for found in letters(settings, [name]):
        if isinstance(found, DeadLetter):
            if found.where[1:] == (partition, offset):
                return found
        elif found[0][1:3] == (partition, offset):
            raise LookupError(f"{name}{DEAD_LETTERS} {partition}@{offset} is not a dead letter: {found[1]}")
    raise LookupError(f"there is no dead letter {name}{DEAD_LETTERS} {partition}@{offset}; they are kept for 14 days")


async def redriven(settings: Settings) -> dict[Where, Redriven]:
    """What was written back so far, of letters that may still be there."""
    found: dict[Where, Redriven] = {}
    async for record in _records(settings, [REDRIVEN]):
        if record.key is not None and record.value is not None:
            with contextlib.suppress(ValueError):  # somebody else's: no note of ours
                found[_where(record.key)] = Redriven.from_json(record.value)
    return found


def key_of(where: Where) -> bytes:
    """The key of the note that a letter was written back."""
    return f"{where.topic}{DEAD_LETTERS}/{where.partition}/{where.offset}".encode()


def _where(key: bytes) -> Where:
    topic, partition, offset = key.decode().rsplit("/", 2)
    return Where(topic.removesuffix(DEAD_LETTERS), int(partition), int(offset))


async def _records(settings: Settings, names: Sequence[str]) -> AsyncIterator[Record]:
    async with Reader(settings, names) as reader:
        if reader.found:
            async for record in reader.records(from_beginning=True, follow=False, stop=asyncio.Event()):
                yield record
