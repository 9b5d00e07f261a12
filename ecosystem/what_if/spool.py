"""The records of a history in files, one per partition, which several processes read in the order of time."""

import heapq
import marshal
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from runtime.model.records import Record, TopicPartition

_CHUNK = 1000
"""Records that are written and read at once."""


class SpoolWriter:
    """Writes records. Those of a partition come in the order of their offsets.

    The timestamps of a partition become monotone: its records were processed in the order of their offsets, whatever
    the clocks of their producers said.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._chunks: dict[TopicPartition, list[tuple[Any, ...]]] = {}
        self._files: dict[TopicPartition, BinaryIO] = {}
        self._latest: dict[TopicPartition, int] = {}
        self.records = 0
        self.skipped = 0
        """Records that cannot be read: the services dead-letter them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tp in self._chunks:
            self._flush(tp)
        for file in self._files.values():
            file.close()

    def write(self, record: Record) -> None:
        """Adds a record."""
        if record.unreadable is not None:
            self.skipped += 1
            return
        tp = TopicPartition(record.topic, record.partition)
        ms = self._latest[tp] = max(record.timestamp_ms, self._latest.get(tp, 0))
        chunk = self._chunks.setdefault(tp, [])
        chunk.append((ms, record.offset, record.key, record.value, [*record.headers]))
        self.records += 1
        if len(chunk) == _CHUNK:
            self._flush(tp)

    def _flush(self, tp: TopicPartition) -> None:
        if tp not in self._files:
            self._files[tp] = (self._folder / f"{tp.topic}@{tp.partition}").open("wb")
        marshal.dump(self._chunks[tp], self._files[tp])
        self._chunks[tp] = []


def read_merged(folder: Path, ranks: Mapping[str, int]) -> Iterator[Record]:
    """Yields the records of topics by time, those of a partition by offset. Of one time the lower rank comes first."""
    readers = [_read(path, rank) for topic, rank in ranks.items() for path in sorted(folder.glob(f"{topic}@*"))]
    for ms, _rank, offset, topic, partition, key, value, headers in heapq.merge(*readers, key=_time_and_rank):
        yield Record(topic, partition, offset, ms, key, value, headers)


def read_topics(folder: Path, topics: Collection[str]) -> Iterator[Record]:
    """Yields the records of topics, one partition after the other."""
    for topic in topics:
        for path in sorted(folder.glob(f"{topic}@*")):
            for ms, _rank, offset, topic_, partition, key, value, headers in _read(path, 0):
                yield Record(topic_, partition, offset, ms, key, value, headers)


def _time_and_rank(item: tuple[Any, ...]) -> tuple[int, int]:
    return item[0], item[1]


def _read(path: Path, rank: int) -> Iterator[tuple[Any, ...]]:
    topic, _, partition = path.name.rpartition("@")
    number = int(partition)
    with path.open("rb") as file:
        while True:
            try:
                chunk = marshal.load(file)  # written by this process or its parent, into a folder of its own
            except EOFError:
                return
            for ms, offset, key, value, headers in chunk:
                yield ms, rank, offset, topic, number, key, value, headers
