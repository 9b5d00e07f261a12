"""Reads the oldest record of partitions that services have not processed."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping

from aiokafka import AIOKafkaConsumer

from ecosystem.clients.backlog.lags import Head, Reader
from runtime.kafka import aiokafka_internals
from runtime.kafka.clients import KafkaNames
from runtime.kafka.unpacker import FetchedRecord
from runtime.model.progress import Marks
from runtime.model.records import Offsets, TopicPartition

_POLL_MS = 200
_MAX_RECORDS = 2000
"""Records of one poll."""
_MOST_SKIPPED = 5000
"""Records of a partition that are read to find one that the services have not processed in the batch that wrote it.
There are no more of these than a batch has output. Behind so many, the last one that was read counts."""
_PATIENCE_S = 15.0
"""Seconds for all of them: a broker that is silent for longer leaves its partitions unknown."""


async def read_heads(
    consumer: AIOKafkaConsumer, names: KafkaNames, positions: Mapping[Reader, int], ends: Offsets
) -> dict[Reader, Head]:
    """Finds the oldest unprocessed record of each reader. Those that no broker answers for are left out.

    Arguments:
        consumer: without a group; it goes on with the oldest record where a position no longer exists.
        names: of topics.
        positions: of readers, below the end of their partition.
        ends: last stable offsets.
    """
    until, marks, result = time.monotonic() + _PATIENCE_S, Marks(), dict[Reader, Head]()
    waiting: dict[TopicPartition, dict[int, set[Reader]]] = defaultdict(lambda: defaultdict(set))
    for reader, position in positions.items():
        waiting[reader.tp][position].add(reader)
    while waiting and time.monotonic() < until:
        # A consumer has one position in a partition: services at different positions are looked at in turn.
        turn = {tp: min(by_position) for tp, by_position in waiting.items()}
        scans = {tp: _Scan(waiting[tp].pop(position), marks, ends[tp]) for tp, position in turn.items()}
        consumer.assign([names.physical(tp) for tp in turn])
        for tp, position in turn.items():
            consumer.seek(names.physical(tp), position)
        while scans and time.monotonic() < until:
            fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)
            for physical, records in fetched.items():
                if (scan := scans.get(names.partition(physical))) is not None:
                    scan.extend(records)
            reached = {names.partition(tp): offset for tp, offset in aiokafka_internals.positions(consumer).items()}
            for tp, scan in list(scans.items()):
                if scan.done or reached.get(tp, 0) >= ends[tp]:
                    result |= scan.heads()
                    consumer.pause(names.physical(tp))
                    del scans[tp]
        waiting = defaultdict(lambda: defaultdict(set), {tp: by for tp, by in waiting.items() if by})
    return result


class _Scan:
    """Looks through the records of a partition for the first one that each reader has not processed."""

    def __init__(self, readers: set[Reader], marks: Marks, end: int) -> None:
        self.done = False
        self._missing = readers
        self._marks = marks
        self._end = end
        self._found: dict[Reader, Head] = {}
        self._read = 0

    def extend(self, records: Iterable[FetchedRecord]) -> None:
        for r in records:
            if self.done or r.offset >= self._end:
                self.done = True
                return
            head = Head(r.offset, r.timestamp if r.timestamp > 0 else None)
            processed = self._marks.services(r.headers)
            self._read += 1
            for reader in list(self._missing):
                if reader.service not in processed or self._read >= _MOST_SKIPPED:
                    self._found[reader] = head
                    self._missing.discard(reader)
            self.done = not self._missing

    def heads(self) -> dict[Reader, Head]:
        """What was found. Readers that have processed all records are at the end."""
        return self._found | dict.fromkeys(self._missing, Head(self._end))
