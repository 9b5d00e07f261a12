"""The loop of a worker, four steps: take, decide, commit, apply."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from time import perf_counter

from runtime.common import failpoints
from runtime.errors import CommitFenced, CommitInDoubt
from runtime.loop.checkpoint import Checkpoint
from runtime.loop.overlay import BatchOverlay, TablePartition
from runtime.loop.ownership import Ownership
from runtime.loop.process import BatchProcessor
from runtime.loop.timers import Timers
from runtime.metrics.loop import LoopMetrics
from runtime.model.limits import SizeLimits
from runtime.model.records import LastOffsets, PolledRecords, TopicPartition
from runtime.model.topology import Topology
from runtime.model.watch import Watches
from runtime.side_effects.dispatcher import SideEffects

log = logging.getLogger(__name__)


class Loop:
    """Decides what was taken, once.

    Arguments:
        plan: the worker's services.
        partitions: how many partitions every topic has.
        ownership: what the worker owns.
        checkpoint: makes batches durable.
        timers: the calendar of the owned partitions.
        effects: what is done outside Kafka once it is committed.
        watches: who waits for rows to change.
        clock: the time, UTC.
        given_up: called with `CommitFenced` or `CommitInDoubt` when a batch was given up; it must see to a new
            takeover.
        limits: how large a message each topic takes.
    """

    TIMERS_A_BATCH = 1000

    def __init__(
        self,
        topology: Topology,
        partitions: int,
        ownership: Ownership,
        checkpoint: Checkpoint,
        timers: Timers,
        side_effects: SideEffects,
        watches: Watches,
        clock: Callable[[], datetime],
        given_up: Callable[[CommitFenced | CommitInDoubt], None],
        metrics: LoopMetrics,
        limits: SizeLimits | None = None,
    ) -> None:
        self._topology = topology
        self._decider = BatchProcessor(topology, partitions, ownership.store, limits)
        self._ownership = ownership
        self._checkpoint = checkpoint
        self._timers = timers
        self._side_effects = side_effects
        self._watches = watches
        self._clock = clock
        self._given_up = given_up
        self._metrics = metrics
        self.failures = 0
        """How many batches in a row could not be settled."""
        self.turn = asyncio.Lock()
        """Held while a batch is in hand: who takes partitions away waits for it."""

    async def step(self, taken: PolledRecords, epoch: int) -> bool:
        """One go: returns whether it took effect. What was taken in another epoch is dropped: whoever owns it now reads
        it again."""
        async with self.turn:
            if epoch != self._ownership.epoch:
                return False
            start = perf_counter()
            batch = self._decide(taken)
            rows = batch.rows()
            decided = perf_counter()
            writes = batch.writes(rows)
            if writes.empty:
                return True
            failpoints.reach("batch.decided")
            try:
                ends = await self._checkpoint.commit(writes, taken.membership)
            except (CommitFenced, CommitInDoubt) as error:
                self._give_up(error, len(taken.records), epoch)
                return False
            if epoch == self._ownership.epoch and self._overtaken(rows, ends):
                why = "its changelogs hold more than its stores, or were made anew"
                self._give_up(CommitInDoubt(why), len(taken.records), epoch)
                return False
            self.failures = 0
            committed = perf_counter()
            failpoints.reach("commit.done")
            if epoch == self._ownership.epoch:  # else the changelog tells whoever takes over
                self._apply(batch, rows, ends)
            self._metrics.batch(batch, len(taken.records), decided - start, committed - decided)
            return True

    def _give_up(self, error: CommitFenced | CommitInDoubt, records: int, epoch: int) -> None:
        """Nothing is decided until partitions are taken over anew: later offsets would pass over this batch's."""
        kind = "in_doubt" if isinstance(error, CommitInDoubt) else "fenced"
        log.warning("batch given up kind=%s reason=%s records=%d", kind, error, records)
        self._metrics.given_up(kind)
        self.failures += isinstance(error, CommitInDoubt)
        if epoch == self._ownership.epoch:
            self._ownership.lose()
            self._given_up(error)

    async def idle(self) -> None:
        """Returns when no batch is in hand, and nothing of the last one is left to follow."""
        async with self.turn:
            await self._checkpoint.flush()

    def _decide(self, taken: PolledRecords) -> BatchOverlay:
        now = self._clock()
        due = self._timers.due(now, self.TIMERS_A_BATCH)
        return self._decider.decide(taken, due, now, self._ownership.fuses)

    def _overtaken(self, rows: dict[TablePartition, dict[bytes, bytes | None]], ends: LastOffsets) -> bool:
        """Whether a changelog holds rows that are not in the store, before those of this batch or between them; or was
        made anew, and lacks what is in the store.

        Applied all the same, the batch would have the store pass over them for good, or hide that they are gone.
        Between the rows of a fenced checkpoint are markers, and nobody else's rows.
        """
        for (table, partition), changed in rows.items():
            offset = self._ownership.store(table, partition).offset
            known = -1 if offset is None else offset
            end, expected = (
                ends[TopicPartition(self._topology.tables[table].changelog, partition)],
                known + len(changed),
            )
            if end < expected or (end > expected and not self._checkpoint.fenced):
                return True
        return False

    def _apply(
        self, batch: BatchOverlay, rows: dict[TablePartition, dict[bytes, bytes | None]], ends: LastOffsets
    ) -> None:
        """RocksDB is never ahead of the changelog, and never behind what waiters are told."""
        for (table, partition), changed in rows.items():
            changelog = TopicPartition(self._topology.tables[table].changelog, partition)
            self._ownership.store(table, partition).apply(changed, ends[changelog])
            self._timers.apply(table, partition, changed)
            self._side_effects.apply(table, partition, changed)
            failpoints.reach("apply.store")
        self._ownership.sent(batch.by_broker, ends)
        if caught_up := self._ownership.advance(batch.offsets):
            self._timers.release(caught_up)
            self._side_effects.release(caught_up)
        failpoints.reach("apply.done")
        for (table, _), changed in rows.items():
            self._watches.changed(table, changed)
