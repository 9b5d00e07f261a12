"""The processing loop of a worker: process, commit and apply each polled batch."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from time import perf_counter

from runtime.common import failpoints
from runtime.errors import CommitFenced, CommitInDoubt
from runtime.loop.checkpoint import Checkpoint
from runtime.loop.overlay import BatchOverlay
from runtime.loop.partitions import Partitions, Rows
from runtime.loop.process import BatchProcessor
from runtime.loop.redo import RedoLog
from runtime.metrics.loop import LoopMetrics
from runtime.model.limits import SizeLimits
from runtime.model.records import LastOffsets, PolledBatch
from runtime.tracing.batch import BatchTrace, BatchTracer

log = logging.getLogger(__name__)


class Loop:
    """Processes, commits and applies polled batches, one at a time.

    Arguments:
        partitions: the owned partitions, with the observers of their rows.
        checkpoint: makes batches durable.
        clock: the time, UTC.
        abandoned: called with the error when a batch was abandoned. It must have the partitions restored.
        metrics: counts batches.
        limits: how large a message each topic accepts.
        redo: writes redo records, if the checkpoint is not transactional.
        tracer: makes the spans of batches, if they are traced.
    """

    MAX_TIMERS = 1000
    """Timers of one batch. Bounds the size of its transaction; the others fire in the next batch."""

    def __init__(
        self,
        partitions: Partitions,
        checkpoint: Checkpoint,
        *,
        clock: Callable[[], datetime],
        abandoned: Callable[[CommitFenced | CommitInDoubt], None],
        metrics: LoopMetrics,
        limits: SizeLimits | None = None,
        redo: RedoLog | None = None,
        tracer: BatchTracer | None = None,
    ) -> None:
        self.partitions = partitions
        self._ownership = partitions.ownership
        self._redo = redo if redo is not None and redo.needed else None
        self._processor = BatchProcessor(
            partitions.topology,
            partitions.count,
            partitions.ownership.store,
            limits,
            redo=self._redo is not None,
            traced=tracer is not None,
            cached=partitions.ownership.cached,
        )
        self._tracer = tracer
        self._checkpoint = checkpoint
        self._clock = clock
        self._abandoned = abandoned
        self._metrics = metrics
        self.failures = 0
        """Batches in a row whose commit was in doubt."""
        self.turn = asyncio.Lock()
        """Held while a batch is processed: a rebalance waits for it before partitions are revoked."""

    async def step(self, polled: PolledBatch) -> bool:
        """Processes, commits and applies one batch. Returns whether it was committed.

        A batch polled in another epoch is dropped: the present owner of its partitions polls its records again.
        """
        epoch = polled.epoch
        async with self.turn:
            if epoch != self._ownership.epoch:
                return False
            start = perf_counter()
            trace = None if self._tracer is None else self._tracer.batch(polled)
            batch = self._process(polled, trace)
            rows = batch.rows()
            processed = perf_counter()
            if trace is not None:
                trace.step(
                    "process", messages=batch.processed, fused=batch.fused, dead_letters=batch.dead_letters.total()
                )
            writes = batch.writes(rows)
            if self._redo is not None:
                self._redo.add(writes, batch, rows)
            if writes.empty:
                if trace is not None:
                    trace.committed()
                return True
            failpoints.reach("batch.processed")
            try:
                ends = await self._checkpoint.commit(writes, polled.membership)
            except (CommitFenced, CommitInDoubt) as error:
                self._abandon(error, len(polled.records), epoch, trace)
                return False
            if epoch == self._ownership.epoch and self.partitions.overtaken(
                rows, ends, self._ownership.stores, transactional=self._checkpoint.transactional
            ):
                why = "its changelogs and stores differ: another worker wrote to them, or they were created anew"
                self._abandon(CommitInDoubt(why), len(polled.records), epoch, trace)
                return False
            self.failures = 0
            committed = perf_counter()
            if trace is not None:
                trace.step("commit", rows=len(writes.changelog), outputs=len(writes.outputs))
            failpoints.reach("commit.done")
            if epoch == self._ownership.epoch:  # otherwise the next owner restores the rows from the changelog
                self._apply(batch, rows, ends)
            if trace is not None:
                trace.step("apply", tables=len(rows))
                trace.committed()
            self._metrics.batch(batch, len(polled.records), processed - start, committed - processed)
            return True

    def _abandon(self, error: CommitFenced | CommitInDoubt, records: int, epoch: int, trace: BatchTrace | None) -> None:
        """Loses the partitions, so that no later batch commits offsets past these records before a restore."""
        kind = "in_doubt" if isinstance(error, CommitInDoubt) else "fenced"
        if trace is not None:
            trace.dropped(kind)
        log.warning("batch abandoned kind=%s reason=%s records=%d", kind, error, records)
        self._metrics.dropped(kind)
        self.failures += isinstance(error, CommitInDoubt)
        if epoch == self._ownership.epoch:
            self._ownership.lose()
            self._abandoned(error)

    async def idle(self) -> None:
        """Waits until the current batch and the offset commit of the last one are finished."""
        async with self.turn:
            ends = await self._checkpoint.flush()
            if self._redo is not None:
                self._redo.mark_cleared(ends)

    def _process(self, polled: PolledBatch, trace: BatchTrace | None) -> BatchOverlay:
        now = self._clock()
        due = self.partitions.timers.due(now, self.MAX_TIMERS)
        return self._processor.process(polled, due, now, self._ownership.fuses, trace)

    def _apply(self, batch: BatchOverlay, rows: Rows, ends: LastOffsets) -> None:
        self.partitions.apply(rows, ends, batch.changes)
        if self._redo is not None:
            self._redo.mark_read(ends)
        self._ownership.sent(batch.through_kafka, ends)
        if caught_up := self._ownership.advance(batch.offsets):
            self.partitions.release(caught_up)
        failpoints.reach("apply.done")
        self.partitions.changed(rows)
