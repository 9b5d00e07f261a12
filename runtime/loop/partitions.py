"""The partitions of a worker, and all that follows their rows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from runtime.common import failpoints
from runtime.loop.overlay import TablePartition
from runtime.loop.ownership import Ownership
from runtime.loop.timers import Timers
from runtime.model.records import LastOffsets, Membership, Offsets, TopicPartition
from runtime.model.topology import Topology
from runtime.model.watch import Watches
from runtime.side_effects.dispatcher import SideEffects
from runtime.state.stores import Store, Stores

Rows = Mapping[TablePartition, Mapping[bytes, bytes | None]]
"""Changed rows by table and partition; `None` deletes."""


@dataclass(frozen=True, slots=True)
class Partitions:
    """What the loop and rebalances change together: ownership, stores, and who follows the rows of stores.

    Arguments:
        topology: the services of the worker.
        count: partitions of every topic. State lives in these alone, even where a topic was given more later.
        ownership: the topic-partitions that are owned, with their positions and stores.
        stores: opens the stores.
        timers: when which timer is due.
        side_effects: what is done outside Kafka after the commit.
        watches: requests that wait for rows to change.
    """

    topology: Topology
    count: int
    ownership: Ownership
    stores: Stores
    timers: Timers
    side_effects: SideEffects
    watches: Watches

    def changelog(self, table: str, partition: int) -> TopicPartition:
        """The changelog partition of a store."""
        return TopicPartition(self.topology.tables[table].changelog, partition)

    def numbers(self, assigned: Collection[TopicPartition]) -> set[int]:
        """The partition numbers that have state: not those beyond `count`, where no key belongs."""
        return {tp.partition for tp in assigned if tp.partition < self.count}

    def own(
        self,
        membership: Membership,
        positions: Offsets,
        backlog: Offsets,
        stores: Mapping[TablePartition, Store],
    ) -> None:
        """Owns restored partitions, with their timers and side effects; those with a backlog wait for its end."""
        self.ownership.take(membership, positions, backlog, stores)
        self.timers.clear()
        self.timers.hold(self.ownership.behind)
        self.side_effects.hold(self.ownership.behind)
        for (table, partition), store in stores.items():
            self.timers.load(table, partition, store)
            self.side_effects.load(table, partition, store)

    def apply(self, rows: Rows, ends: LastOffsets) -> None:
        """Applies the rows of a committed batch. RocksDB is never ahead of the changelog, nor behind what clients see.

        Arguments:
            rows: changed rows.
            ends: offset of the last record of the batch in each changelog partition.
        """
        for (table, partition), changed in rows.items():
            self.ownership.store(table, partition).apply(changed, ends[self.changelog(table, partition)])
            self.timers.apply(table, partition, changed)
            self.side_effects.apply(table, partition, changed)
            failpoints.reach("apply.store")

    def release(self, caught_up: Collection[int]) -> None:
        """Lets timers and side effects of partitions start whose backlog is processed."""
        self.timers.release(caught_up)
        self.side_effects.release(caught_up)

    def changed(self, rows: Rows) -> None:
        """Wakes the requests that wait for these rows."""
        for (table, _), changed in rows.items():
            self.watches.changed(table, changed)
