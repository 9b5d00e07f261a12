"""Unpacking of what a broker answers to a fetch, for every consumer of this process: it never raises.

aiokafka raises on a batch that it cannot unpack, and does so again at every further attempt: one damaged message, or
one of a codec that is not known, would end a worker for good. Here such a batch becomes records with a `fault`, at
their offsets, so that whoever reads them decides what they mean: dead letters, lost rows of a table, a line for people.

Readable batches go through aiokafka's own parser, in C. `record_batch.py` reads the others record by record.
"""

import logging
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch

from runtime.kafka.decompression import Buffer, DecompressionError
from runtime.kafka.record_batch import (
    FRAME,
    OVERHEAD,
    V2,
    ParsedRecord,
    decompress_batch,
    is_framed,
    find_valid_batch,
    parse,
    parse_legacy,
)
from runtime.model.dead_letters import LOST_UNTIL
from runtime.model.records import Header

log = logging.getLogger(__name__)

MAX_SINGLE_RECORDS = 10_000
"""Offsets of a batch up to which each becomes a record of its own: behind each there is a message that is missed."""

_CODEC = 0x07
_OF_TRANSACTION = 0x30  # a part of one, or its marker
_LOST = "nothing is kept of it: have its producer send it again, and look for damaged disks"
_ODD_NAME = "`orders dead-letters redrive` writes it back with that name escaped"
_LATEST_MS = 253_402_300_799_999  # the year 9999
_MOST_SUSPECTS = 1000
_suspects: dict[tuple[str, int, int], None] = {}
"""Batches that were damaged when they were fetched first: they may have been damaged on their way."""


class FetchedRecord(NamedTuple):
    """A record as it was fetched.

    A `fault` says what keeps it from being made out, and what to do. It stands for everything up to `last_offset` then,
    with a header `LOST_UNTIL`; but for `last_offset` being `None`: then key and value are as they were written.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    unreadable: str | None = None
    last_offset: int | None = None


class FetchedBatches:
    """Takes the place of aiokafka's `MemoryRecords`: what was fetched of a partition, whole or not."""

    def __init__(self, raw: bytes | None) -> None:
        self.raw = raw or b""

    def has_next(self) -> bool:
        return bool(self.raw)

    def size_in_bytes(self) -> int:
        return len(self.raw)


class TolerantRecords:
    """Takes the place of aiokafka's `PartitionRecords`: an iterator over `FetchedRecord`s, aborted ones left out."""

    def __init__(
        self,
        tp: Any,
        batches: FetchedBatches,
        aborted_transactions: Sequence[tuple[int, int]] | None,
        fetch_offset: int,
        _key_deserializer: None,
        _value_deserializer: None,
        _check_crcs: bool,
        isolation_level: int,
    ) -> None:
        self._topic, self._partition = tp.topic, tp.partition
        self._raw = batches.raw
        self._committed_only = isolation_level == fetcher.READ_COMMITTED
        self._to_abort = sorted(aborted_transactions or (), key=lambda transaction: transaction[1], reverse=True)
        self._aborted = set[int]()
        self._asked = fetch_offset
        self.next_fetch_offset = fetch_offset
        self._records: Iterator[FetchedRecord] | None = self._unpack()

    def __iter__(self) -> Iterator[FetchedRecord]:
        return self

    def __next__(self) -> FetchedRecord:
        if self._records is None:
            raise StopIteration
        try:
            return next(self._records)
        except StopIteration:
            self._records = None  # it refers to this object
            raise

    def _unpack(self) -> Iterator[FetchedRecord]:
        """Ends where the next fetch is to begin: at a batch that is not whole, or is damaged for the first time."""
        raw, at = self._raw, 0
        view = memoryview(raw)
        while at < len(raw):
            base, length, _, version = FRAME.unpack_from(raw, at) if len(raw) - at >= FRAME.size else (0, 0, 0, 0)
            end = at + OVERHEAD + length
            if not is_framed(version, length) or end > len(raw):
                if self.next_fetch_offset > self._asked or self._suspect(self._asked):
                    return  # the last one seldom is whole
                sound = find_valid_batch(raw, at + 1, self._asked)
                last = self._asked if sound is None else sound[1] - 1
                fault = f"where the batch begins it is damaged: version {version}, {length} bytes, {len(raw) - at} sent"
                if last >= self._asked:
                    yield from self._unreadable(self._asked, last, 0, fault, singly=False)
                if sound is None:
                    return
                at = sound[0]
                continue
            if version != 2:
                if base >= self.next_fetch_offset and (yield from self._legacy(raw[at:end], base)):
                    return
                self.next_fetch_offset = max(self.next_fetch_offset, base + 1)
            else:
                batch = DefaultRecordBatch(view[at:end])
                sound = batch.validate_crc()
                if sound or _is_dense(view[at:end]):
                    if not (batch.attributes & _OF_TRANSACTION and self._aborted_or_marker(batch, sound)):
                        if sound:
                            yield from self._readable(batch, view[at:end])
                        elif self._suspect(base):
                            return
                        else:
                            fault = "the batch is damaged: its checksum is wrong"
                            yield from self._whole_batch(batch, view[at:end], fault)
                    self.next_fetch_offset = max(self.next_fetch_offset, batch.next_offset)
                elif self._suspect(base):
                    return
                else:
                    yield from self._with_its_head(batch, end)
            at = end

    def _aborted_or_marker(self, batch: Any, sound: bool) -> bool:
        """Whether a batch is to be passed over: the marker of a transaction, or a part of one that was aborted."""
        if self._committed_only:
            while self._to_abort and self._to_abort[-1][1] <= batch.base_offset:
                self._aborted.add(self._to_abort.pop()[0])
        if batch.is_control_batch:
            # Transactions of a producer follow one another: its next marker ends the one that was aborted.
            self._aborted.discard(batch.producer_id)
            return sound
        return bool(batch.is_transactional) and batch.producer_id in self._aborted

    def _readable(self, batch: Any, raw: memoryview) -> Iterator[FetchedRecord]:
        """The records of a batch whose checksum is right."""
        topic, partition = self._topic, self._partition
        records: Buffer | None = None
        if batch.attributes & _CODEC:
            try:
                batch, records = decompress_batch(batch, raw)
            except DecompressionError as error:
                yield from self._whole_batch(batch, raw, f"the batch cannot be read: {error}")
                return
        try:
            for record in batch:
                offset = record.offset
                if offset < self.next_fetch_offset:
                    continue  # of a batch that holds the wanted offset, and some before it
                self.next_fetch_offset = offset + 1
                yield FetchedRecord(
                    topic, partition, offset, record.timestamp, record.key, record.value, tuple(record.headers)
                )
        except (
            Exception
        ) as error:  # CorruptRecordException, UnicodeDecodeError, MemoryError, whatever a length leads to
            log.debug("batch read record by record topic=%s partition=%d error=%r", topic, partition, error)
            records = raw[V2.size :] if records is None else records
            yield from self._one_by_one(parse(batch, V2.unpack_from(raw)[-1], records))

    def _with_its_head(self, batch: Any, end: int) -> Iterator[FetchedRecord]:
        """A batch whose checksum is wrong and whose head contradicts itself: the one behind it tells where it ends."""
        first, last = self.next_fetch_offset, batch.next_offset - 1
        if (sound := find_valid_batch(self._raw, end, batch.base_offset)) is not None:
            last = sound[1] - 1
        elif not first <= last <= first + len(self._raw):
            last = first
        fault = "the batch is damaged, its head included: its checksum is wrong"
        if first <= last:
            yield from self._unreadable(first, last, 0, fault, singly=False)

    def _whole_batch(self, batch: Any, raw: memoryview, fault: str) -> Iterator[FetchedRecord]:
        first, last = max(batch.base_offset, self.next_fetch_offset), batch.next_offset - 1
        if first <= last:
            yield from self._unreadable(first, last, batch.first_timestamp, fault, singly=_is_dense(raw))

    def _legacy(self, raw: bytes, offset: int) -> Generator[FetchedRecord, None, bool]:
        """The records of a message of version 0 or 1. Returns whether it is to be fetched once more."""
        try:
            records = parse_legacy(raw, self.next_fetch_offset)
        except ValueError as error:
            if self._suspect(offset):
                return True
            first = self.next_fetch_offset if raw[17] & 7 else max(offset, self.next_fetch_offset)
            fault = f"the message, of version {raw[16]}, cannot be read: {error}"
            yield from self._unreadable(first, max(first, offset), 0, fault, singly=False)
        else:
            yield from self._one_by_one(iter(records))
        return False

    def _one_by_one(self, records: Iterator[ParsedRecord]) -> Iterator[FetchedRecord]:
        for r in records:
            last = r.offset if r.last_offset is None else r.last_offset
            if last < self.next_fetch_offset:
                continue
            if r.unreadable is not None and r.last_offset is not None:
                first = max(r.offset, self.next_fetch_offset)
                yield from self._unreadable(first, last, r.timestamp_ms, r.unreadable, singly=True)
            else:
                self.next_fetch_offset = r.offset + 1
                fault = r.unreadable and f"{r.unreadable}; {_ODD_NAME}"
                yield FetchedRecord(self._topic, self._partition, *r[:4], tuple(r.headers), fault)

    def _unreadable(self, first: int, last: int, time_ms: int, fault: str, *, singly: bool) -> Iterator[FetchedRecord]:
        """What cannot be made out, from offset to offset: a record each, or one for all."""
        topic, partition = self._topic, self._partition
        log.error("unreadable topic=%s partition=%d first=%d last=%d cause=%s", topic, partition, first, last, fault)
        time_ms = time_ms if 0 <= time_ms <= _LATEST_MS else 0
        if last > first and not (singly and last - first < MAX_SINGLE_RECORDS):
            ends, fault = range(last, last + 1), f"{fault}, from offset {first} to {last}"
        else:
            ends = range(first, last + 1)
        for end in ends:
            begin, self.next_fetch_offset = self.next_fetch_offset, end + 1
            bounds = ((LOST_UNTIL, b"%d" % (end + 1)),)
            offset = max(first, begin)
            yield FetchedRecord(topic, partition, offset, time_ms, None, None, bounds, f"{fault}; {_LOST}", end)

    def _suspect(self, offset: int) -> bool:
        """Whether a batch is found damaged for the first time, and is to be fetched once more."""
        place = (self._topic, self._partition, offset)
        if place in _suspects:
            del _suspects[place]
            return False
        while len(_suspects) >= _MOST_SUSPECTS:
            del _suspects[next(iter(_suspects))]
        _suspects[place] = None
        log.warning("damaged, fetching again topic=%s partition=%d offset=%d", *place)
        return True


def _is_dense(raw: memoryview) -> bool:
    """Whether the head of a batch names as many records as offsets: none was compacted away, and it is sound."""
    head = V2.unpack_from(raw)
    return bool(0 <= head[6] == head[12] - 1)


def install() -> None:
    """Has every consumer that is made in this process unpack with these classes."""
    fetcher.MemoryRecords = FetchedBatches
    fetcher.PartitionRecords = TolerantRecords
