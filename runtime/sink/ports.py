"""What a sink needs of Kafka and of the database. Tests implement these in memory."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from runtime.model.records import Offsets, TopicPartition
from runtime.model.sink import BulkWriter
from runtime.sink.placement import LogState, Placement, SinkPosition


class Fetched(NamedTuple):
    """A fetched record, as `runtime.kafka.unpacker.FetchedRecord` has it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    unreadable: str | None = None
    last_offset: int | None = None


class Polled(NamedTuple):
    """Fetched records by partition, in order.

    Arguments:
        records: those of assigned partitions.
        positions: the next offset to fetch of each assigned partition, also past transaction markers.
        ends: last stable offset of each partition, as of its last fetch.
    """

    records: Mapping[TopicPartition, Sequence[Fetched]]
    positions: Offsets
    ends: Offsets


class SinkConsumer(Protocol):
    """A member of the sink's consumer group."""

    generation: int
    """Counts the changes of the assignment."""

    def assignment(self) -> Collection[TopicPartition]:
        """The assigned partitions."""

    async def logs(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, LogState]:
        """The logs of partitions, as the broker has them."""

    async def fetch(self, timeout_s: float) -> Polled:
        """Waits up to `timeout_s` for records. Raises `PositionOutOfRange`."""

    def seek(self, positions: Offsets) -> None:
        """Fetches from these positions on."""


class Move(NamedTuple):
    """The next offset of a partition in a log: from `expected` to `next_offset`.

    Arguments:
        end: last stable offset.
        produced_ms: timestamp of the last record, milliseconds; `None` without a record.
    """

    log: int
    expected: int
    next_offset: int
    end: int
    produced_ms: int | None = None


Moves = Mapping[TopicPartition, Move]


class SinkDatabase(Protocol):
    """The database of the service. Its calls raise `DatabaseUnavailable`."""

    async def place(
        self, logs: Mapping[TopicPartition, LogState]
    ) -> Mapping[TopicPartition, tuple[SinkPosition, Placement]]:
        """Where to read on in each partition (`runtime.sink.placement.place`). Stores new logs."""

    def transaction(self, moves: Moves) -> AbstractAsyncContextManager[BulkWriter]:
        """A transaction that advances the offsets and commits at the end of the block.

        Raises `OffsetsMoved`, and changes nothing, if an offset is not the expected one: another worker has stored
        these records. Raises `RowsRejected` for rows that the database does not accept.
        """
