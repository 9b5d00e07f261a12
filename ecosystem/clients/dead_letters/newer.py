"""Which dead letters of a compacted topic a newer record of the same key has replaced: they are not written back.

A compacted topic tells how things stand: its last record of a key is what counts. Within a partition the offset says
which is the newer one. A misplaced record stands in another partition than the others of its key, so that only the
times that producers wrote can be compared; where they tell nothing the letter counts as replaced.
"""

import asyncio
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from ecosystem.clients.dead_letters.letter import DeadLetter, Where
from ecosystem.clients.readable import moment
from ecosystem.clients.reader import Reader
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings

_EARLIEST_MS = 10**12
"""Of September 2001. An earlier time is none in milliseconds: some producers write seconds, or -1."""


class _Entry(NamedTuple):
    partition: int
    offset: int
    where: Where
    time_ms: int
    """When it was set aside, then when the record was written."""


class _Last(NamedTuple):
    offset: int
    time_ms: int


@dataclass
class Newer:
    """What is newer than the wanted letters of a compacted topic: records in the right partition, and other letters."""

    topic: str
    partitions: int
    overwrite: bool
    _letters: dict[bytes, list[_Entry]] = field(default_factory=dict)
    _written_ms: dict[tuple[int, int], int] = field(default_factory=dict)
    _last: dict[bytes, _Last] = field(default_factory=dict)

    @classmethod
    async def of(
        cls, settings: Settings, topic: str, letters: AsyncIterable[DeadLetter], partitions: int, *, overwrite: bool
    ) -> Self:
        """Reads the topic once. With `overwrite` only the letters are compared with each other."""
        found = cls(topic, partitions, overwrite)
        async for letter in letters:
            if letter.key is not None:
                entry = _Entry(letter.from_partition, letter.from_offset, letter.where, letter.time_ms)
                found._letters.setdefault(letter.key, []).append(entry)
        if found._letters:
            await found._read(settings)
            found._letters = {key: found._dated(some) for key, some in found._letters.items()}
        return found

    async def _read(self, settings: Settings) -> None:
        places = {(one.partition, one.offset) for some in self._letters.values() for one in some}
        async with Reader(settings, [self.topic]) as reader:
            async for record in reader.records(from_beginning=True, follow=False, stop=asyncio.Event()):
                if (record.partition, record.offset) in places:
                    self._written_ms[record.partition, record.offset] = record.timestamp_ms
                if record.key in self._letters and record.partition == self._belongs(record.key):
                    self._last[record.key] = _Last(record.offset, record.timestamp_ms)

    def _dated(self, entries: list[_Entry]) -> list[_Entry]:
        """The letters of a key with the times of their records.

        A record was written before it was set aside, whatever time its producer gave it, and behind those before it in
        its partition. One that is no longer there was replaced in its partition: it is as old as can be.
        """
        result: list[_Entry] = []
        for one in sorted(entries):
            written_ms = min(self._written_ms.get((one.partition, one.offset), 0), one.time_ms)
            if result and result[-1].partition == one.partition:
                written_ms = max(written_ms, result[-1].time_ms)
            result.append(one._replace(time_ms=written_ms))
        return result

    def than(self, letter: DeadLetter) -> str | None:
        """Why the letter is not to be written back; `None` if nothing is newer."""
        if letter.key is None:
            return None
        letters = self._letters.get(letter.key, [])
        mine = next((one for one in letters if one.where == letter.where), None)
        if mine is None:
            return "it came while this ran: run it again"
        latest = max(letters, key=lambda one: (one.time_ms, one))
        if latest.where != mine.where:
            return f"the dead letter {latest.where} has the same key, and is newer or tells the same"
        last = self._last.get(letter.key)
        if self.overwrite or last is None or not self._older(mine, last, belongs := self._belongs(letter.key)):
            return None
        written = moment(last.time_ms)
        at = f"{last.time_ms} ms" if written is None else f"{written:%Y-%m-%d %H:%M:%S}"
        return (
            f"it may be older than the record of its key in {self.topic} {belongs}@{last.offset}, written "
            f"{at}, and would replace it (--overwrite does so)"
        )

    def _belongs(self, key: bytes) -> int:
        return partition_of(key, self.partitions)

    @staticmethod
    def _older(mine: _Entry, last: _Last, belongs: int) -> bool:
        if mine.partition == belongs:
            return mine.offset < last.offset
        return last.time_ms < _EARLIEST_MS or mine.time_ms <= last.time_ms
