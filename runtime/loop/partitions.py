"""The partitions of a worker, with the timers, side effects and watches that observe their rows."""

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
from schemas.wire import Message

Rows = Mapping[TablePartition, Mapping[bytes, bytes | None]]
"""Changed rows by table and partition; `None` deletes."""

DecodedRows = Mapping[TablePartition, Mapping[str, Message | None]]
"""Changed rows by table, partition and key; `None` deletes."""


@dataclass(frozen=True, slots=True)
class Partitions:
    """Ownership, stores and the observers of their rows, which the loop and rebalances change together.

    Arguments:
        topology: the services of the worker.
        count: partitions of every topic. A topic that got more partitions later has no state in those.
        ownership: the owned topic-partitions, with their positions and stores.
        stores: opens the stores.
        timers: the timer queue.
        side_effects: runs side effects after the commit.
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
        """The partition numbers that have state: those below `count`, as no key belongs to the others."""
        return {tp.partition for tp in assigned if tp.partition < self.count}

    def own(
        self,
        membership: Membership,
        positions: Offsets,
        backlog: Offsets,
        stores: Mapping[TablePartition, Store],
        ahead: Mapping[TopicPartition, Mapping[str, int]] | None = None,
        starts: Collection[TopicPartition] = (),
    ) -> None:
        """Owns restored partitions. Their timers and side effects are on hold while there is a backlog."""
        self.ownership.acquire(membership, positions, backlog, stores, ahead, starts)
        self.timers.clear()
        self.timers.hold(self.ownership.behind)
        self.side_effects.hold(self.ownership.behind)
        for (table, partition), store in stores.items():
            self.timers.load(table, partition, store)
            self.side_effects.load(table, partition, store)

    def overtaken(
        self, rows: Rows, ends: LastOffsets, stores: Mapping[TablePartition, Store], *, transactional: bool
    ) -> bool:
        """Whether a changelog has rows of another writer before or among these, or lacks rows.

        The store of such a changelog has to be restored: applying the rows would skip those of the other writer, or
        hide that the changelog was deleted and created anew. With a transactional checkpoint there is no other writer,
        but transaction markers take up offsets.

        Arguments:
            rows: changed rows.
            ends: last written offset of each changelog partition.
            stores: the stores of the rows, without these.
            transactional: whether the checkpoint is transactional.
        """
        for (table, partition), changed in rows.items():
            offset = stores[table, partition].offset
            known = -1 if offset is None else offset
            end, expected = ends[self.changelog(table, partition)], known + len(changed)
            if end < expected or (end > expected and not transactional):
                return True
        return False

    def apply(self, rows: Rows, ends: LastOffsets, decoded: DecodedRows) -> None:
        """Applies the rows of a committed batch to stores, timers and side effects.

        RocksDB is never ahead of the changelog, and never behind an acknowledged answer.

        Arguments:
            rows: changed rows.
            ends: last written offset of each changelog partition.
            decoded: the changed rows as processors have made them, those included that the batch itself has deleted.
        """
        for (table, partition), changed in rows.items():
            self.ownership.store(table, partition).apply(changed, ends[self.changelog(table, partition)])
            self.ownership.cached.changed(self.topology.tables[table], partition, decoded[table, partition])
            self.timers.apply(table, partition, changed)
            self.side_effects.apply(table, partition, changed)
            failpoints.reach("apply.store")

    def release(self, caught_up: Collection[int]) -> None:
        """Starts timers and side effects of partitions whose backlog is processed."""
        self.timers.release(caught_up)
        self.side_effects.release(caught_up)

    def changed(self, rows: Rows) -> None:
        """Wakes the requests that wait for these rows."""
        for (table, _), changed in rows.items():
            self.watches.changed(table, changed)
