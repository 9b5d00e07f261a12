"""What a worker owns right now: partitions that are taken over, with the stores of their tables."""

import zlib
from collections.abc import Iterable, Mapping

from runtime.errors import PartitionNotOwned
from runtime.model.records import Membership, TopicPartition
from runtime.state.stores import Store

NOBODY = Membership(-1, "")


BUCKETS = 1024
"""Into which keys fall: what is remembered of messages on their way is bounded by that, for each partition."""


def bucket_of(key: str) -> int:
    """Keys of one bucket wait for each other."""
    return zlib.crc32(key.encode()) % BUCKETS


class Ownership:
    """Read by the loop, the transport and the HTTP handlers; changed by the handover alone.

    `epoch` counts the changes: what was taken in one epoch is not decided in another. `running` is false between
    losing partitions and having taken over the next ones, which may be none.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.running = False
        self.membership = NOBODY
        self.partitions: frozenset[TopicPartition] = frozenset()
        self._numbers: frozenset[int] = frozenset()
        self.positions: dict[TopicPartition, int] = {}
        self._stores: dict[tuple[str, int], Store] = {}
        self._backlog: dict[TopicPartition, int] = {}
        self._on_their_way: dict[TopicPartition, dict[int, int]] = {}
        """Position from which the last message is read that went by the broker from here, by bucket."""

    def lose(self) -> None:
        """From now on nothing is owned."""
        self.epoch += 1
        self.running = False
        self.partitions = frozenset()
        self._numbers = frozenset()
        self._stores = {}

    def take(
        self,
        membership: Membership,
        positions: Mapping[TopicPartition, int],
        backlog: Mapping[TopicPartition, int],
        stores: Mapping[tuple[str, int], Store],
    ) -> None:
        """From now on the partitions in `positions` are owned, and read from there.

        `backlog` holds the end of each partition's log at this moment.
        """
        self.epoch += 1
        self.running = True
        self.membership = membership
        self.partitions = frozenset(positions)
        self._numbers = frozenset(tp.partition for tp in positions)
        self.positions = dict(positions)
        self._backlog = {tp: end for tp, end in backlog.items() if end > positions[tp]}
        self._on_their_way = {}
        self._stores = dict(stores)

    def store(self, table: str, partition: int) -> Store:
        """The store of an owned table and partition. Raises `PartitionNotOwned`."""
        try:
            return self._stores[table, partition]
        except KeyError:
            raise PartitionNotOwned(f"{table}[{partition}]") from None

    def owns(self, partition: int) -> bool:
        """Whether this partition of the topics is owned, and with it that of the stores."""
        return partition in self._numbers

    def fuses(self, tp: TopicPartition, bucket: int) -> bool:
        """Whether a message to this partition under a key of this bucket may be decided here and now.

        Not before the backlog found at the takeover is read, nor what went there by the broker since then under keys of
        this bucket: messages of one source would overtake each other.
        """
        if tp not in self.partitions or tp in self._backlog:
            return False
        return bucket not in self._on_their_way.get(tp, ())

    def sent(self, buckets: Mapping[TopicPartition, Iterable[int]], ends: Mapping[TopicPartition, int]) -> None:
        """Notes what a committed batch has sent to partitions owned here without deciding it, and where these end."""
        for tp, some in buckets.items():
            if tp in self.partitions and tp in ends:
                self._on_their_way.setdefault(tp, {}).update(dict.fromkeys(some, ends[tp] + 1))

    def settled(self, partition: int) -> bool:
        """Whether the partition is owned, and all that had been written to it before is in its state."""
        return self.owns(partition) and partition not in self.behind

    @property
    def behind(self) -> set[int]:
        """The partitions whose backlog found at the takeover is not read yet, in one topic or more."""
        return {tp.partition for tp in self._backlog}

    def advance(self, positions: Mapping[TopicPartition, int]) -> set[int]:
        """Notes how far a committed batch came. Returns the partitions that have caught up by it."""
        self.positions.update(positions)
        for tp in self._on_their_way.keys() & positions.keys():
            left = {bucket: behind for bucket, behind in self._on_their_way[tp].items() if behind > positions[tp]}
            if left:
                self._on_their_way[tp] = left
            else:
                del self._on_their_way[tp]
        if not self._backlog:
            return set()
        behind = self.behind
        for tp, position in positions.items():
            if position >= self._backlog.get(tp, position + 1):
                del self._backlog[tp]
        return behind - self.behind
