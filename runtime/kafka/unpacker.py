"""Decodes fetch responses for every consumer of this process, and never raises.

aiokafka raises on a batch that it cannot decode, at every attempt: one damaged message, or one with an unknown codec,
would stop a worker for good. Here such a batch yields records with the reason in `unreadable`, at their offsets; each
reader decides what they mean to it: dead letters, lost rows of a table, a line on a terminal.

Readable batches go through aiokafka's own parser, in C; `record_batch.py` parses the others record by record.

Relies on `aiokafka.consumer.fetcher`: it looks up `MemoryRecords` and `PartitionRecords` in its own module, and uses of
them what `FetchedBatches` and `TolerantRecords` have. `_set_error` replaces a method of `Fetcher`.
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
    find_valid_batch,
    is_framed,
    parse,
    parse_legacy,
)
from runtime.model.dead_letters import LOST_UNTIL
from runtime.model.records import Header

log = logging.getLogger(__name__)

MAX_SINGLE_RECORDS = 10_000
"""Offsets of an unreadable batch up to which each yields a record of its own; a larger batch yields one record."""

_CODEC = 0x07
_TRANSACTIONAL = 0x30  # attributes: part of a transaction, or a control batch
_LOST = "its content is lost: have its producer send it again, and check the brokers' disks"
_INVALID_NAME = "`orders dead-letters redrive` writes it back with that name escaped"
_LATEST_MS = 253_402_300_799_999  # the year 9999
_MAX_SUSPECTS = 1000
_suspects: dict[tuple[str, int, int], None] = {}
"""Topic, partition and offset of batches whose first fetch was damaged. A second fetch shows whether the network or the
log is damaged."""


class FetchedRecord(NamedTuple):
    """A fetched record, or a range of unreadable ones.

    `unreadable` is the cause and the remedy. With it, the record represents all offsets up to `last_offset`, and has
    the header `LOST_UNTIL`; if `last_offset` is `None`, key and value are as they were written.
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
    """Replaces aiokafka's `MemoryRecords`: the fetched bytes of a partition; the last batch may be truncated."""

    def __init__(self, raw: bytes | None) -> None:
        self.raw = raw or b""

    def has_next(self) -> bool:
        return bool(self.raw)

    def size_in_bytes(self) -> int:
        return len(self.raw)


class TolerantRecords:
    """Replaces aiokafka's `PartitionRecords`: an iterator over `FetchedRecord`s without those of aborted transactions.

    `next_fetch_offset` is where the next fetch has to begin; aiokafka reads it.
    """

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
        self._fetch_offset = fetch_offset
        self.next_fetch_offset = fetch_offset
        self._records: Iterator[FetchedRecord] | None = self._decode()

    def __iter__(self) -> Iterator[FetchedRecord]:
        return self

    def __next__(self) -> FetchedRecord:
        if self._records is None:
            raise StopIteration
        try:
            return next(self._records)
        except StopIteration:
            self._records = None  # breaks the reference cycle with this object
            raise

    def _decode(self) -> Iterator[FetchedRecord]:
        """Ends before a batch to be fetched again: a truncated one, or one whose first fetch was damaged."""
        raw, at = self._raw, 0
        view = memoryview(raw)
        while at < len(raw):
            base, length, _, version = FRAME.unpack_from(raw, at) if len(raw) - at >= FRAME.size else (0, 0, 0, 0)
            end = at + OVERHEAD + length
            if not is_framed(version, length) or end > len(raw):
                if self.next_fetch_offset > self._fetch_offset or self._is_first_damage(self._fetch_offset):
                    return  # the last batch of a response is usually truncated
                next_batch = find_valid_batch(raw, at + 1, self._fetch_offset)
                last = self._fetch_offset if next_batch is None else next_batch[1] - 1
                reason = f"the batch's first fields are damaged: version {version}, length {length} of {len(raw) - at}"
                if last >= self._fetch_offset:
                    yield from self._unreadable(self._fetch_offset, last, 0, reason, one_each=False)
                if next_batch is None:
                    return
                at = next_batch[0]
                continue
            if version != 2:
                if base >= self.next_fetch_offset and (yield from self._legacy(raw[at:end], base)):
                    return
                self.next_fetch_offset = max(self.next_fetch_offset, base + 1)
            else:
                batch = DefaultRecordBatch(view[at:end])
                valid = batch.validate_crc()
                if valid or _is_dense(view[at:end]):
                    if not (batch.attributes & _TRANSACTIONAL and self._is_aborted_or_control(batch, valid)):
                        if valid:
                            yield from self._readable(batch, view[at:end])
                        elif self._is_first_damage(base):
                            return
                        else:
                            reason = "the batch is damaged: its checksum does not match"
                            yield from self._unreadable_batch(batch, view[at:end], reason)
                    self.next_fetch_offset = max(self.next_fetch_offset, batch.next_offset)
                elif self._is_first_damage(base):
                    return
                else:
                    yield from self._damaged_header(batch, end)
            at = end

    def _is_aborted_or_control(self, batch: Any, valid: bool) -> bool:
        """Whether to skip a batch: a control batch, or one of an aborted transaction."""
        if self._committed_only:
            while self._to_abort and self._to_abort[-1][1] <= batch.base_offset:
                self._aborted.add(self._to_abort.pop()[0])
        if batch.is_control_batch:
            # A producer's transactions are sequential: its next control batch ends the aborted one.
            self._aborted.discard(batch.producer_id)
            return valid
        return bool(batch.is_transactional) and batch.producer_id in self._aborted

    def _readable(self, batch: Any, raw: memoryview) -> Iterator[FetchedRecord]:
        """The records of a batch with a valid checksum."""
        topic, partition = self._topic, self._partition
        records: Buffer | None = None
        if batch.attributes & _CODEC:
            try:
                batch, records = decompress_batch(batch, raw)
            except DecompressionError as error:
                yield from self._unreadable_batch(batch, raw, f"the batch cannot be read: {error}")
                return
        try:
            for record in batch:
                offset = record.offset
                if offset < self.next_fetch_offset:
                    continue  # the batch begins before the fetch offset
                self.next_fetch_offset = offset + 1
                yield FetchedRecord(
                    topic, partition, offset, record.timestamp, record.key, record.value, tuple(record.headers)
                )
        # A wrong length leads to CorruptRecordException, UnicodeDecodeError, MemoryError or others.
        except Exception as error:
            log.debug("batch parsed record by record topic=%s partition=%d error=%r", topic, partition, error)
            records = raw[V2.size :] if records is None else records
            yield from self._parsed(parse(batch, V2.unpack_from(raw)[-1], records))

    def _damaged_header(self, batch: Any, end: int) -> Iterator[FetchedRecord]:
        """A batch with a wrong checksum and an inconsistent header: the next valid batch shows where it ends."""
        first, last = self.next_fetch_offset, batch.next_offset - 1
        if (next_batch := find_valid_batch(self._raw, end, batch.base_offset)) is not None:
            last = next_batch[1] - 1
        elif not first <= last <= first + len(self._raw):
            last = first
        reason = "the batch is damaged, its header included: its checksum does not match"
        if first <= last:
            yield from self._unreadable(first, last, 0, reason, one_each=False)

    def _unreadable_batch(self, batch: Any, raw: memoryview, reason: str) -> Iterator[FetchedRecord]:
        first, last = max(batch.base_offset, self.next_fetch_offset), batch.next_offset - 1
        if first <= last:
            yield from self._unreadable(first, last, batch.first_timestamp, reason, one_each=_is_dense(raw))

    def _legacy(self, raw: bytes, offset: int) -> Generator[FetchedRecord, None, bool]:
        """The records of a message of version 0 or 1. Returns whether to fetch it again."""
        try:
            records = parse_legacy(raw, self.next_fetch_offset)
        except ValueError as error:
            if self._is_first_damage(offset):
                return True
            first = self.next_fetch_offset if raw[17] & 7 else max(offset, self.next_fetch_offset)
            reason = f"the message, of version {raw[16]}, cannot be read: {error}"
            yield from self._unreadable(first, max(first, offset), 0, reason, one_each=False)
        else:
            yield from self._parsed(iter(records))
        return False

    def _parsed(self, records: Iterator[ParsedRecord]) -> Iterator[FetchedRecord]:
        for r in records:
            last = r.offset if r.last_offset is None else r.last_offset
            if last < self.next_fetch_offset:
                continue
            if r.unreadable is not None and r.last_offset is not None:
                first = max(r.offset, self.next_fetch_offset)
                yield from self._unreadable(first, last, r.timestamp_ms, r.unreadable, one_each=True)
            else:
                self.next_fetch_offset = r.offset + 1
                reason = r.unreadable and f"{r.unreadable}; {_INVALID_NAME}"
                yield FetchedRecord(self._topic, self._partition, *r[:4], tuple(r.headers), reason)

    def _unreadable(
        self, first: int, last: int, time_ms: int, reason: str, *, one_each: bool
    ) -> Iterator[FetchedRecord]:
        """Records that represent the unreadable offsets `first` to `last`: one for each, or one for all."""
        topic, partition = self._topic, self._partition
        log.error(
            "records unreadable topic=%s partition=%d first=%d last=%d reason=%s", topic, partition, first, last, reason
        )
        time_ms = time_ms if 0 <= time_ms <= _LATEST_MS else 0
        if last > first and not (one_each and last - first < MAX_SINGLE_RECORDS):
            ends, reason = range(last, last + 1), f"{reason}, from offset {first} to {last}"
        else:
            ends = range(first, last + 1)
        for end in ends:
            begin, self.next_fetch_offset = self.next_fetch_offset, end + 1
            bounds = ((LOST_UNTIL, b"%d" % (end + 1)),)
            offset = max(first, begin)
            yield FetchedRecord(topic, partition, offset, time_ms, None, None, bounds, f"{reason}; {_LOST}", end)

    def _is_first_damage(self, offset: int) -> bool:
        """Whether the batch at this offset was not seen damaged before, so that it is fetched again."""
        place = (self._topic, self._partition, offset)
        if place in _suspects:
            del _suspects[place]
            return False
        while len(_suspects) >= _MAX_SUSPECTS:
            del _suspects[next(iter(_suspects))]
        _suspects[place] = None
        log.warning("batch damaged, fetched again topic=%s partition=%d offset=%d", *place)
        return True


def _is_dense(raw: memoryview) -> bool:
    """Whether a batch's header has as many records as offsets: it is consistent, and nothing was compacted away."""
    header = V2.unpack_from(raw)
    return bool(0 <= header[6] == header[12] - 1)


def install() -> None:
    """Makes every consumer created in this process decode with these classes."""
    fetcher.MemoryRecords = FetchedBatches
    fetcher.PartitionRecords = TolerantRecords
    fetcher.Fetcher._set_error = _set_error  # noqa: SLF001 - see there


def _set_error(self: Any, tp: Any, error: Exception) -> None:
    """Notes an error for the reader of a partition, unless something else waits there for it.

    aiokafka asserts that nothing does. When a partition without a position gets another leader, two of its tasks look
    for the position, and both note that there is none: the assertion then ends the fetching of all partitions.
    """
    if tp not in self._records:
        self._records[tp] = fetcher.FetchError(error=error, backoff=self._prefetch_backoff)
