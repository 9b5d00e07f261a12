"""Rebalances: revokes partitions between two batches, restores assigned ones before they are polled."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from runtime.common import failpoints
from runtime.common.backoff import Backoff, retry
from runtime.common.clock import elapsed_s
from runtime.data_loss.losses import RecordsLost
from runtime.errors import CommitFenced, RedoRejected, StoreError
from runtime.loop.loop import Loop
from runtime.loop.partitions import Partitions
from runtime.loop.redo import RedoLog
from runtime.metrics.loop import LoopMetrics
from runtime.model.records import Membership, TopicPartition
from runtime.state.restore import Restorer
from runtime.state.stores import Store

log = logging.getLogger(__name__)


class PollingControl(Protocol):
    """The poller, as a rebalance controls it."""

    def hold(self) -> None:
        """Stops polling."""

    def read_from(self, positions: Mapping[TopicPartition, int]) -> None:
        """Polls these partitions from these offsets."""


class Standbys(Protocol):
    """The standby replicas, as a rebalance controls them."""

    def mark_complete(self, partitions: Collection[int]) -> None:
        """Marks the stores of these partitions as complete, as this worker has owned them until now."""

    def follow(self, partitions: Collection[int]) -> None:
        """Follows these partitions and no others. Once this returns, stores of the others are not written."""


class Rebalance:
    """Revokes partitions, and restores and resumes those that the group assigns.

    Only a rebalance acquires partitions. The loop advances their positions; loop and poller may lose them.

    Arguments:
        partitions: the owned partitions, with the observers of their rows.
        restorer: reads committed offsets and changelogs.
        poller: pauses, and polls from the restored positions.
        metrics: counts restored records.
        failed: called with an error that ends the worker.
        standbys: keeps standby replicas of partitions that other workers own.
        redo: redoes what redo records say that a crash left.
        fenced: called when redoing was fenced: the worker must rejoin its group.
    """

    RETRY_S = 0.5
    """Seconds before a failed restore is retried: often enough for a broker that is unavailable for a moment."""

    LOG_S = 2.0
    """Seconds between two log lines of a restore."""

    def __init__(
        self,
        partitions: Partitions,
        restorer: Restorer,
        poller: PollingControl,
        *,
        metrics: LoopMetrics,
        failed: Callable[[BaseException], None],
        standbys: Standbys | None = None,
        redo: RedoLog | None = None,
        fenced: Callable[[], None] = lambda: None,
    ) -> None:
        self._partitions = partitions
        self._redo = redo
        self._fenced = fenced
        self._ownership = partitions.ownership
        self._restorer = restorer
        self._poller = poller
        self._metrics = metrics
        self._failed = failed
        self._standbys = standbys
        self._assigned: tuple[TopicPartition, ...] = ()
        self._standby: frozenset[int] = frozenset()
        self._owned = False
        self._membership = partitions.ownership.membership
        self._task: asyncio.Task[None] | None = None
        self.progress: dict[str, Any] = {}
        """Progress of a running restore, for `/readyz`."""
        self.failures = 0
        """Restores that failed and were retried."""

    async def revoke(self, loop: Loop, limit_s: float, side_effects_s: float = 0.0) -> None:
        """Loses all partitions once running side effects and the current batch are finished.

        A batch that is not finished in time cannot be committed later: its offsets carry the old generation.

        Arguments:
            loop: the loop that may be processing a batch.
            limit_s: seconds, the time limit for all of it.
            side_effects_s: seconds of `limit_s` to wait for running side effects.
        """
        await self._cancel()
        until = elapsed_s() + limit_s
        # The loop runs meanwhile, as it commits their acknowledgements.
        await self._partitions.side_effects.drain(side_effects_s if self._ownership.running else 0)
        self._poller.hold()
        failpoints.reach("rebalance.revoking")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(until - elapsed_s()):
                await loop.idle()
                if self._redo is not None:
                    await self._redo.settle()
        self._ownership.lose()
        self._partitions.side_effects.unload()
        self._mark_standbys()
        await self._cancel()  # a batch that was abandoned meanwhile may have started a restore
        self._metrics.owned(0)
        self._partitions.watches.touch_all()
        failpoints.reach("rebalance.revoked")

    async def restore_and_resume(
        self, assigned: Collection[TopicPartition], membership: Membership, standby: Collection[int] = ()
    ) -> None:
        """Restores and resumes assigned partitions in the background, so that the group does not wait.

        Standby replicas of the partitions in `standby` are followed once the restore is done.
        """
        self._metrics.rebalanced()
        await self._cancel()
        self._ownership.lose()
        self._mark_standbys()
        if self._standbys is not None:
            self._standbys.follow(())
        self._partitions.side_effects.unload()
        self._partitions.side_effects.retain(self._continued(assigned, membership))
        self._partitions.side_effects.resume()
        self._assigned, self._membership, self._standby = tuple(sorted(assigned)), membership, frozenset(standby)
        self._poller.hold()
        self._task = asyncio.create_task(self._retry_until_restored(), name="restore")

    def retry(self, after: float = 0.0) -> None:
        """Restores the assigned partitions after `after` seconds.

        Their committed offsets show whether a batch in doubt was committed.
        """
        self._poller.hold()
        self._mark_standbys()
        self._partitions.side_effects.unload()
        self._metrics.owned(0)
        self._partitions.watches.touch_all()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._retry_until_restored(after), name="restore")

    async def stop(self) -> None:
        await self._cancel()

    def _continued(self, assigned: Collection[TopicPartition], membership: Membership) -> set[int]:
        """The assigned partitions that this worker owned in the previous generation."""
        before = self._membership
        if (membership.member_id, membership.generation) != (before.member_id, before.generation + 1):
            return set()
        return self._partitions.numbers(assigned) & self._partitions.numbers(self._assigned)

    def _mark_standbys(self) -> None:
        if self._owned and self._standbys is not None:
            self._standbys.mark_complete(self._partitions.numbers(self._assigned))
        self._owned = False

    async def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _retry_until_restored(self, after: float = 0.0) -> None:
        await asyncio.sleep(after)

        def report(error: Exception) -> None:
            log.warning("restore failed, retrying error=%r", error)
            self.failures += 1
            self._metrics.restore_failed()

        # Any other error means that the broker is unavailable: retried until the next rebalance.
        lasting = (RecordsLost, StoreError, RedoRejected, CommitFenced)
        try:
            await retry(
                self._restore_all,
                Backoff(self.RETRY_S),
                passes=lambda error: not isinstance(error, lasting),
                report=report,
            )
        except RecordsLost:
            pass  # it has ended the worker, which has skipped no record
        except CommitFenced as error:
            log.warning("redoing was fenced, rejoining the group error=%s", error)
            self._fenced()
        except RedoRejected as error:
            self._failed(error)
        except StoreError as error:
            log.exception("state store cannot be opened")
            self._failed(error)

    async def _restore_all(self) -> None:
        start = elapsed_s()
        partitions = self._partitions.numbers(self._assigned)
        if beyond := {tp.topic for tp in self._assigned if tp.partition not in partitions}:
            log.error(
                "topics have more partitions than PARTITIONS, their records are dead-lettered topics=%s PARTITIONS=%s",
                ",".join(sorted(beyond)),
                self._partitions.count,
            )
        self._partitions.stores.keep(self._standby.union(partitions))
        if self._assigned:
            failpoints.reach("rebalance.assigned")
            positions = await self._restorer.committed(self._assigned)
            failpoints.reach("rebalance.offsets")
            stores = {
                (t, p): self._partitions.stores.open(t, p)
                for t in self._partitions.topology.tables
                for p in sorted(partitions)
            }
            failpoints.reach("rebalance.opened")
            restored = await self._restore(stores)
            failpoints.reach("rebalance.restored")
            if self._redo is not None:
                await self._redo.redo(stores, self._membership, positions)
            failpoints.reach("rebalance.redone")
            backlog = await self._restorer.ends(self._assigned)
            failpoints.reach("rebalance.backlog")
            ahead, starts = self._restorer.ahead, self._restorer.starts
            self._partitions.own(self._membership, positions, backlog, stores, ahead, starts)
            failpoints.reach("rebalance.owned")
            self._poller.read_from(positions)
        else:
            restored = 0
            self._partitions.own(self._membership, {}, {}, {})
        self.progress = {}
        self._owned = True
        if self._standbys is not None:
            self._standbys.follow(self._standby)
        seconds = elapsed_s() - start
        self._metrics.restore_took(seconds)
        self._metrics.owned(len(self._assigned))
        log.info("partitions restored partitions=%s restored=%d seconds=%.2f", sorted(partitions), restored, seconds)
        self._partitions.watches.touch_all()

    async def _restore(self, stores: Mapping[tuple[str, int], Store]) -> int:
        applied, logged_at = 0, elapsed_s()

        def progress(records: int, left: int) -> None:
            nonlocal applied, logged_at
            applied += records
            self.progress = {"restored": applied, "left": left}
            if elapsed_s() - logged_at > self.LOG_S:
                logged_at = elapsed_s()
                log.info("restoring restored=%d left=%d", applied, left)

        by_changelog = {self._partitions.changelog(*key): store for key, store in stores.items()}
        await self._restorer.restore(by_changelog, progress)
        self._metrics.restored(applied)
        return applied
