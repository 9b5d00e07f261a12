"""The partitions that a worker owns now, with their positions and state stores."""

import zlib
from collections.abc import Collection, Iterable, Mapping

from runtime.errors import PartitionNotOwned
from runtime.model.records import Membership, TopicPartition
from runtime.state.row_cache import RowCache
from runtime.state.stores import Store

NOBODY = Membership(-1, "")
"""The membership before the first assignment."""

BUCKETS = 1024
"""Key buckets of a partition. Bounds the memory for offsets of messages in flight."""


def bucket_of(key: bytes) -> int:
    """The bucket of a key. All messages of a bucket keep their order."""
    return zlib.crc32(key) % BUCKETS


class Ownership:
    """What a worker owns. Read by loop, poller and HTTP handlers; changed by rebalances and by the loop.

    `epoch` counts the changes of ownership: a batch polled in one epoch is not processed in another. `running` is
    false from losing partitions until the next ones, perhaps none, are restored.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.running = False
        self.membership = NOBODY
        self.partitions: frozenset[TopicPartition] = frozenset()
        self._numbers: frozenset[int] = frozenset()
        self.positions: dict[TopicPartition, int] = {}
        self.ahead: dict[TopicPartition, Mapping[str, int]] = {}
        """Positions of services above the one that a partition is read from: each skips the records below its own."""
        self.starts: set[TopicPartition] = set()
        """Partitions with a position of a service that is not committed yet. Nothing is polled before it is."""
        self._stores: dict[tuple[str, int], Store] = {}
        self.cached = RowCache()
        """Decoded rows of the stores."""
        self._backlog: dict[TopicPartition, int] = {}
        self._in_flight: dict[TopicPartition, dict[int, int]] = {}
        """Per partition and key bucket: offset after the last record that this worker sent through Kafka."""

    def lose(self) -> None:
        """Owns nothing from now on."""
        self.epoch += 1
        self.running = False
        self.partitions = frozenset()
        self._numbers = frozenset()
        self._stores = {}
        self.cached.clear()

    def acquire(
        self,
        membership: Membership,
        positions: Mapping[TopicPartition, int],
        backlog: Mapping[TopicPartition, int],
        stores: Mapping[tuple[str, int], Store],
        ahead: Mapping[TopicPartition, Mapping[str, int]] | None = None,
        starts: Collection[TopicPartition] = (),
    ) -> None:
        """Owns the partitions in `positions` from now on.

        Arguments:
            membership: the membership that they were assigned to.
            positions: the next offset to read of each partition.
            backlog: the log end offset of each partition at the restore.
            stores: restored stores by table and partition.
            ahead: positions of the services that have processed more of a partition than is read.
            starts: partitions with a position of a service that is not committed yet.
        """
        self.epoch += 1
        self.running = True
        self.membership = membership
        self.partitions = frozenset(positions)
        self._numbers = frozenset(tp.partition for tp in positions)
        self.positions = dict(positions)
        self.ahead = dict(ahead or {})
        self.starts = set(starts)
        self._backlog = {tp: end for tp, end in backlog.items() if end > positions[tp]}
        self._in_flight = {}
        self._stores = dict(stores)
        self.cached.clear()

    def store(self, table: str, partition: int) -> Store:
        """The store of an owned table and partition. Raises `PartitionNotOwned`."""
        try:
            return self._stores[table, partition]
        except KeyError:
            raise PartitionNotOwned(f"{table}[{partition}]") from None

    @property
    def stores(self) -> Mapping[tuple[str, int], Store]:
        """The stores of all owned tables and partitions."""
        return self._stores

    def owns(self, partition: int) -> bool:
        """Whether the topic partitions and stores of this number are owned."""
        return partition in self._numbers

    def fuses(self, tp: TopicPartition, bucket: int) -> bool:
        """Whether a message to this partition under a key of this bucket may be fused into the batch.

        Not before the backlog found at the restore is processed, nor while messages of the bucket that this worker sent
        through Kafka are unread: messages of one source would overtake each other.
        """
        if tp not in self.partitions or tp in self._backlog:
            return False
        return bucket not in self._in_flight.get(tp, ())

    def sent(self, buckets: Mapping[TopicPartition, Iterable[int]], ends: Mapping[TopicPartition, int]) -> None:
        """Remembers the buckets that a committed batch sent through Kafka to owned partitions.

        Arguments:
            buckets: key buckets of the sent records, by partition.
            ends: last written offset of each partition.
        """
        for tp, sent in buckets.items():
            if tp in self.partitions and tp in ends:
                self._in_flight.setdefault(tp, {}).update(dict.fromkeys(sent, ends[tp] + 1))

    def settled(self, partition: int) -> bool:
        """Whether the partition is owned and the backlog found at its restore is processed."""
        return self.owns(partition) and partition not in self.behind

    @property
    def behind(self) -> set[int]:
        """The partitions whose backlog found at the restore is not processed yet, in one topic or more."""
        return {tp.partition for tp in self._backlog}

    def advance(self, positions: Mapping[TopicPartition, int]) -> set[int]:
        """Moves to the positions of a committed batch. Returns the partitions whose backlog it ends."""
        self.positions.update(positions)
        if self.starts:
            self.starts.difference_update(positions)
        for tp in self.ahead.keys() & positions.keys():
            if positions[tp] >= max(self.ahead[tp].values()):
                del self.ahead[tp]
        for tp in self._in_flight.keys() & positions.keys():
            unread = {bucket: end for bucket, end in self._in_flight[tp].items() if end > positions[tp]}
            if unread:
                self._in_flight[tp] = unread
            else:
                del self._in_flight[tp]
        if not self._backlog:
            return set()
        behind = self.behind
        for tp, position in positions.items():
            if position >= self._backlog.get(tp, position + 1):
                del self._backlog[tp]
        return behind - self.behind
