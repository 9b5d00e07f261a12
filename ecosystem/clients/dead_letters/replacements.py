"""Finds dead letters of a compacted topic whose key has a newer record: they are not redriven.

In a compacted topic the last record of a key counts. Within a partition the offset tells which record is newer. A
misplaced record is in another partition than the other records of its key, so only the timestamps can be compared;
where they tell nothing, the dead letter counts as replaced.
"""

import asyncio
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from ecosystem.clients.dead_letters.dead_letter import DeadLetter, DeadLetterId
from ecosystem.clients.readable import moment
from ecosystem.clients.reader import Reader
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings

_EARLIEST_MS = 10**12
"""September 2001. An earlier timestamp is not in milliseconds: some producers write seconds, or -1."""


class _Entry(NamedTuple):
    partition: int
    offset: int
    id: DeadLetterId
    time_ms: int
    """When the record was dead-lettered; replaced by when it was written, once that is known."""


class _LastRecord(NamedTuple):
    offset: int
    time_ms: int


@dataclass
class Replacements:
    """What is newer than the wanted dead letters: records in the right partition, and other dead letters."""

    topic: str
    partitions: int
    overwrite: bool
    _entries: dict[bytes, list[_Entry]] = field(default_factory=dict)
    _written_ms: dict[tuple[int, int], int] = field(default_factory=dict)
    _last: dict[bytes, _LastRecord] = field(default_factory=dict)

    @classmethod
    async def read(
        cls, settings: Settings, topic: str, letters: AsyncIterable[DeadLetter], partitions: int, *, overwrite: bool
    ) -> Self:
        """Reads the topic once. With `overwrite`, only the dead letters are compared with each other."""
        found = cls(topic, partitions, overwrite)
        async for letter in letters:
            if letter.key is not None:
                entry = _Entry(letter.from_partition, letter.from_offset, letter.id, letter.time_ms)
                found._entries.setdefault(letter.key, []).append(entry)
        if found._entries:
            await found._read_topic(settings)
            found._entries = {key: found._dated(entries) for key, entries in found._entries.items()}
        return found

    async def _read_topic(self, settings: Settings) -> None:
        positions = {(entry.partition, entry.offset) for entries in self._entries.values() for entry in entries}
        async with Reader(settings, [self.topic]) as reader:
            async for record in reader.records(from_beginning=True, follow=False, stop=asyncio.Event()):
                if (record.partition, record.offset) in positions:
                    self._written_ms[record.partition, record.offset] = record.timestamp_ms
                if record.key in self._entries and record.partition == self._right_partition(record.key):
                    self._last[record.key] = _LastRecord(record.offset, record.timestamp_ms)

    def _dated(self, entries: list[_Entry]) -> list[_Entry]:
        """Replaces the times of the dead letters of a key by the times of their records.

        A record was written before it was dead-lettered, whatever timestamp its producer gave it, and after its
        predecessors in its partition. A record that is no longer there was replaced in its partition: it counts as
        the oldest.
        """
        result: list[_Entry] = []
        for entry in sorted(entries):
            written_ms = min(self._written_ms.get((entry.partition, entry.offset), 0), entry.time_ms)
            if result and result[-1].partition == entry.partition:
                written_ms = max(written_ms, result[-1].time_ms)
            result.append(entry._replace(time_ms=written_ms))
        return result

    def reason_to_skip(self, letter: DeadLetter) -> str | None:
        """Says what may be newer than the dead letter; `None` if nothing is."""
        if letter.key is None:
            return None
        entries = self._entries.get(letter.key, [])
        own = next((entry for entry in entries if entry.id == letter.id), None)
        if own is None:
            return "it was written while this command ran: run the command again"
        latest = max(entries, key=lambda entry: (entry.time_ms, entry))
        if latest.id != own.id:
            return f"the dead letter {latest.id} has the same key, and is at least as new"
        last = self._last.get(letter.key)
        partition = self._right_partition(letter.key)
        if self.overwrite or last is None or not self._is_older(own, last, partition):
            return None
        written = moment(last.time_ms)
        at = f"{last.time_ms} ms" if written is None else f"{written:%Y-%m-%d %H:%M:%S}"
        return (
            f"it may be older than the record of its key in {self.topic} {partition}@{last.offset}, written "
            f"{at}, and would replace it (--overwrite does so)"
        )

    def _right_partition(self, key: bytes) -> int:
        return partition_of(key, self.partitions)

    @staticmethod
    def _is_older(own: _Entry, last: _LastRecord, partition: int) -> bool:
        if own.partition == partition:
            return own.offset < last.offset
        return last.time_ms < _EARLIEST_MS or own.time_ms <= last.time_ms
