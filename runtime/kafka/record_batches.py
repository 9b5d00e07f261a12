"""Builds and numbers record batches. Relies on aiokafka's compiled builder of batches, version 2."""

import time
from collections.abc import Iterable, Mapping, Sequence

from aiokafka import TopicPartition as Physical
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from runtime.model.records import Write

BATCH_BYTES = 512 * 1024
"""Bytes of a record batch at most, but for a single larger record: below `message.max.bytes` of any broker."""

_VERSION, _UNCOMPRESSED = 2, 0
_NO_PRODUCER = -1
SEQUENCES = 2**31
"""The sequence number of a producer's records in a partition begins at 0 again after so many records."""


class RecordBatch:
    """A record batch of one partition, and the records that it was built of."""

    __slots__ = ("_builder", "raw", "writes")

    def __init__(self, *, transactional: bool) -> None:
        self._builder = DefaultRecordBatchBuilder(
            _VERSION, _UNCOMPRESSED, transactional, _NO_PRODUCER, _NO_PRODUCER, _NO_PRODUCER, BATCH_BYTES
        )
        self.writes: list[Write] = []
        self.raw = b""

    def append(self, write: Write, timestamp_ms: int) -> bool:
        """Adds a record, if there is room for it or the batch is empty."""
        _, _, key, value, headers = write
        if self._builder.append(len(self.writes), timestamp_ms, key, value, list(headers)) is None:
            return False
        self.writes.append(write)
        return True

    def finish(self, producer_id: int, epoch: int, sequence: int) -> int:
        """Encodes the batch with the sequence number of its first record. Returns that of the record after it."""
        self._builder.set_producer_state(producer_id, epoch, sequence)
        self.raw = self._builder.build()
        return (sequence + len(self.writes)) % SEQUENCES


Batches = Mapping[Physical, Sequence[RecordBatch]]
"""The batches of each partition, in order."""


class Sequences:
    """The sequence numbers of a producer, by which a broker recognises a repeated batch."""

    def __init__(self, producer_id: int, epoch: int) -> None:
        self.producer_id = producer_id
        self.epoch = epoch
        self._next: dict[Physical, int] = {}

    def number(self, batches: Batches) -> Batches:
        """Encodes batches with the next numbers of their partitions, and returns them."""
        for tp, of_partition in batches.items():
            sequence = self._next.get(tp, 0)
            for batch in of_partition:
                sequence = batch.finish(self.producer_id, self.epoch, sequence)
            self._next[tp] = sequence
        return batches


def split(writes: Iterable[Write], *, one_by_one: bool, transactional: bool) -> list[RecordBatch]:
    """Splits records of a partition into batches, in order.

    Arguments:
        writes: the records.
        one_by_one: whether each record is a batch of its own.
        transactional: whether the batches are of a transaction. A broker rejects those of a producer without one.
    """
    now_ms = int(time.time() * 1000)
    batches: list[RecordBatch] = []
    for write in writes:
        if not batches or one_by_one or not batches[-1].append(write, now_ms):
            batch = RecordBatch(transactional=transactional)
            batch.append(write, now_ms)
            batches.append(batch)
    return batches
