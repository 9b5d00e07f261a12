"""Redo records of a worker: written ahead of each batch, and redone by the next restore if a crash left them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from hashlib import blake2b

from runtime.data_loss.losses import LossReporter
from runtime.errors import CommitInDoubt, MessageTooLarge, RedoRejected
from runtime.loop.checkpoint import Checkpoint, lasting
from runtime.loop.overlay import BatchOverlay, TablePartition
from runtime.loop.partitions import Partitions, Rows
from runtime.model.dead_letters import dead_letter
from runtime.model.limits import SizeLimits
from runtime.model.records import NO_OFFSET, LastOffsets, Membership, Offsets, Record, TopicPartition, Write, Writes
from runtime.model.redo import OWNER, RedoRecord, Unit, left_over, records
from runtime.model.redo_progress import RedoProgress
from runtime.state.stores import Store
from schemas.topics import DEAD_LETTERS

Stores = Mapping[TablePartition, Store]
"""Restored stores by table and partition."""

log = logging.getLogger(__name__)


class RedoLog:
    """Adds redo records to batches, and redoes those that a crash left.

    The stores of redo tables contain what restores and standby replicas read from the changelogs, and the token of the
    last restore. A worker puts no redo records of its own batches there: the next batch overwrites or clears them.

    Arguments:
        partitions: the owned partitions.
        checkpoint: makes batches durable. A transactional one needs no redo records, and redoes those of another.
        limits: how large a message each topic accepts.
        losses: the lost records that the restore found.
        clock: the time, UTC.
    """

    MARK_EVERY = 200
    """Records of a redo table after which its store is marked as read up to them: bounds the restore after a crash."""

    MOST_REJECTED = 5
    """Rejections in a row that no retry can mend. Then the worker ends, as after batches (`runtime.loop.engine`)."""

    def __init__(
        self,
        partitions: Partitions,
        checkpoint: Checkpoint,
        *,
        limits: SizeLimits,
        losses: LossReporter,
        clock: Callable[[], datetime],
    ) -> None:
        self._partitions = partitions
        self._topology = partitions.topology
        self._checkpoint = checkpoint
        self._limits = limits
        self._losses = losses
        self._clock = clock
        self._tables = {service: table.name for service, table in self._topology.redo_tables.items()}
        self._by_changelog = {table.changelog: table.name for table in self._topology.redo_tables.values()}
        self._ends: dict[TopicPartition, int] = {}
        """By partition of a redo table: last offset up to which it is cleared, as far as this worker has written it."""
        self._uncleared: dict[TopicPartition, int] = {}
        """Pieces of the last batch."""
        self._progress = RedoProgress({})
        self._writing: asyncio.Future[LastOffsets] | None = None
        """The last commit of `redo`, which may still be under way."""
        self._token = ""
        self._restores = 0
        self._batches = 0
        self._revision = limits.revision
        self._rejected = 0

    @property
    def needed(self) -> bool:
        """Whether batches need redo records."""
        return bool(self._tables) and not self._checkpoint.transactional

    def add(self, writes: Writes, batch: BatchOverlay, rows: Rows) -> None:
        """Adds the redo records of a batch to its writes."""
        self._batches += 1
        self._uncleared = {}
        name = f"{self._token}-{self._batches:012}"  # redone in this order: records of two batches may be left over
        writes.redo_progress = self._progress
        by_unit: dict[Unit, dict[str, Mapping[bytes, bytes | None]]] = {}
        for (table, partition), changed in rows.items():
            by_unit.setdefault(Unit(self._topology.holders[table].name, partition), {})[table] = changed
        for unit, record in records(by_unit, batch.calls or ()).items():
            pieces, table = record.pieces(self._token, name), self._tables[unit.service]
            tp = self._partitions.changelog(table, unit.partition)
            self._uncleared[tp] = len(pieces)
            writes.redo += self._changelog(table, unit.partition, pieces)

    def mark_read(self, ends: LastOffsets) -> None:
        """Marks stores of redo tables that are `MARK_EVERY` records behind as read, up to the present redo records.

        Arguments:
            ends: last offset of each partition that the commit of the present batch has written to.
        """
        self._mark(ends, self.MARK_EVERY)

    def mark_cleared(self, ends: LastOffsets) -> None:
        """Marks all stores of redo tables as read, once no redo record is left.

        Arguments:
            ends: last offset of each partition that the clearing has written to.
        """
        self._uncleared = {}
        self._mark(ends, 1)

    def _mark(self, ends: LastOffsets, every: int) -> None:
        for tp, end in ends.items():
            if tp.topic in self._by_changelog:
                self._ends[tp] = end - self._uncleared.get(tp, 0)
        for tp, end in self._ends.items():
            if self._partitions.ownership.owns(tp.partition):
                store = self._partitions.ownership.store(self._by_changelog[tp.topic], tp.partition)
                if end - (store.offset or 0) >= every:
                    store.mark_complete(end)

    async def redo(self, stores: Stores, membership: Membership, positions: Offsets) -> None:
        """Redoes and clears the redo records in restored stores, and takes over the redo tables.

        From then on redo records with the token of an earlier restore do not count: their batches are processed again.

        Arguments:
            stores: the restored stores by table and partition.
            membership: the membership that the partitions were assigned to.
            positions: the next offset to read of each partition.

        Raises `CommitFenced`, `CommitInDoubt` or `RedoRejected`.
        """
        await self.settle()
        self._ends.clear()
        self._progress = RedoProgress({})
        if not self._tables:
            return
        token = "" if self._checkpoint.transactional else self._new_token(membership)
        rows: dict[TablePartition, Mapping[bytes, bytes | None]] = {}
        cleared: dict[TablePartition, Mapping[bytes, bytes | None]] = {}
        outputs: dict[tuple[str, int], Write] = {}
        redone: list[str] = []
        services = {table: service for service, table in self._tables.items()}
        for table, partition in [key for key in stores if key[0] in services]:
            unit = Unit(services[table], partition)
            known = dict(stores[table, partition].items())
            if token or known:
                owner = {OWNER: token.encode() or None}
                cleared[table, partition] = {**dict.fromkeys(known), **owner}
            found = left_over(known.items())
            if found is not None:
                batch, record = found
                redone.append(f"{unit.service}[{unit.partition}]")
                rows |= self._accepted_rows(unit, record)
                outputs |= {(batch, sent.position): self._accepted(unit, sent.write) for sent in record.sent}
        if redone:
            log.warning("redo records are left over, redoing units=%s", ",".join(redone))
            await self._commit(stores, rows, [write for _, write in sorted(outputs.items())], membership, positions)
        if cleared:
            ends = await self._commit(stores, cleared, [], membership, positions)
            tables = [self._partitions.changelog(*key) for key in cleared]
            self._progress = RedoProgress({tp: ends[tp] for tp in tables})
        self._token = token

    async def settle(self) -> None:
        """Waits until nothing that `redo` writes is under way.

        A cancelled `redo` may have sent its token already. If it arrived after that of the next owner, the redo records
        of the next owner would not count.
        """
        if self._writing is not None:
            await asyncio.wait((self._writing,))

    async def _finished(self, commit: Awaitable[LastOffsets]) -> LastOffsets:
        """Commits, also if the caller is cancelled meanwhile: `settle` waits for it."""
        self._writing = asyncio.ensure_future(commit)
        self._writing.add_done_callback(lambda done: done.cancelled() or done.exception())  # or asyncio reports it
        return await asyncio.shield(self._writing)

    async def _commit(
        self, stores: Stores, rows: Rows, outputs: list[Write], membership: Membership, positions: Offsets
    ) -> LastOffsets:
        """Commits rows and outputs, and applies the rows to their stores. Returns their last offsets."""
        writes = Writes(outputs=outputs)
        for (table, partition), changed in rows.items():
            writes.changelog += self._changelog(table, partition, changed)
        if self._checkpoint.transactional:  # the offsets are committed already: they fence the transaction
            writes.offsets = self._losses.without_loss(positions)
        try:
            ends = await self._finished(self._checkpoint.commit(writes, membership))
        except CommitInDoubt as error:
            self._count_rejection(error)
            raise
        self._rejected = 0
        if self._partitions.overtaken(rows, ends, stores, transactional=self._checkpoint.transactional):
            raise CommitInDoubt("another worker wrote to a changelog during its restore")
        for (table, partition), changed in rows.items():
            stores[table, partition].apply(changed, ends[self._partitions.changelog(table, partition)])
        return ends

    def _new_token(self, membership: Membership) -> str:
        """A token that no other restore has: the coordinator makes member ids, and this member counts its restores."""
        self._restores += 1
        return blake2b(repr((*membership, self._restores)).encode(), digest_size=8).hexdigest()

    def _count_rejection(self, error: CommitInDoubt) -> None:
        """Raises `RedoRejected` if the broker rejects redone records again and again, although no limit is new."""
        learned, self._revision = self._revision != self._limits.revision, self._limits.revision
        self._rejected = self._rejected + 1 if lasting(error.__cause__) and not learned else 0
        if self._rejected >= self.MOST_REJECTED:
            raise RedoRejected(f"{error}") from error

    def _changelog(self, table: str, partition: int, rows: Mapping[bytes, bytes | None]) -> list[Write]:
        topic = self._topology.tables[table].changelog
        return [Write(topic, partition, key, value) for key, value in rows.items()]

    def _accepted_rows(self, unit: Unit, record: RedoRecord) -> dict[TablePartition, dict[bytes, bytes | None]]:
        """The rows of a redo record that can be written. Others are logged: their input will be dead-lettered."""
        result: dict[TablePartition, dict[bytes, bytes | None]] = {}
        for table, changed in record.rows.items():
            if table not in self._topology.tables:
                log.error("table of a redo record is gone table=%s partition=%d", table, unit.partition)
                continue
            accepted = result[table, unit.partition] = dict(changed)
            for write in self._changelog(table, unit.partition, changed):
                try:
                    self._limits.check(write.topic, write.size)
                except MessageTooLarge:
                    log.exception("row of a redo record is too large table=%s partition=%d", table, unit.partition)
                    del accepted[write.key or b""]
        return {key: changed for key, changed in result.items() if changed}

    def _accepted(self, unit: Unit, write: Write) -> Write:
        """The record, or its dead letter if it is known to be larger than its topic accepts."""
        try:
            self._limits.check(write.topic, write.size)
        except MessageTooLarge as error:
            if write.topic.endswith(DEAD_LETTERS):
                return write
            now = self._clock()
            ms = int(now.timestamp() * 1000)
            record = Record(write.topic, write.partition, NO_OFFSET, ms, write.key, write.value, write.headers)
            most = self._limits.max_bytes(write.topic + DEAD_LETTERS)
            return dead_letter(record, unit.service, f"{type(error).__name__}: {error}", now, most)
        return write
