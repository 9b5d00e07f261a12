"""How partitions change hands: given up with no batch in hand, taken over with nothing in flight."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from runtime.common import failpoints
from runtime.common.clock import elapsed_s
from runtime.data_loss.losses import RecordsLost
from runtime.errors import StoreError
from runtime.loop.loop import Loop
from runtime.loop.partitions import Partitions
from runtime.metrics.loop import LoopMetrics
from runtime.model.records import Membership, TopicPartition
from runtime.state.restore import Restorer
from runtime.state.stores import Store

log = logging.getLogger(__name__)


class PollingControl(Protocol):
    """The consumer's side of a handover."""

    def hold(self) -> None:
        """Stops reading all partitions."""

    def read_from(self, positions: Mapping[TopicPartition, int]) -> None:
        """Reads these partitions from these offsets."""


class Standbys(Protocol):
    """The standby's side of a handover."""

    def were_owned(self, partitions: Collection[int]) -> None:
        """Up to now these partitions were owned here, hence their stores complete."""

    def follow(self, partitions: Collection[int]) -> None:
        """From now on follows these partitions and no others: stores of those are left alone once this returns."""


class Rebalance:
    """Revokes partitions, and restores and resumes those that the group assigns.

    The only writer of `Ownership`, besides the loop.

    Arguments:
        partitions: what the worker owns, and all that follows its rows.
        restorer: reads committed offsets and changelogs.
        poller: pauses, and polls from the restored positions.
        metrics: counts restored records.
        failed: called with an error that ends the worker.
        standbys: keeps standby replicas of partitions that other workers own.
    """

    RETRY_S = 0.5

    def __init__(
        self,
        partitions: Partitions,
        restorer: Restorer,
        poller: PollingControl,
        *,
        metrics: LoopMetrics,
        failed: Callable[[BaseException], None],
        standbys: Standbys | None = None,
    ) -> None:
        self._partitions = partitions
        self._ownership = partitions.ownership
        self._restorer = restorer
        self._poller = poller
        self._metrics = metrics
        self._failed = failed
        self._standbys = standbys
        self._assigned: tuple[TopicPartition, ...] = ()
        self._standby: frozenset[int] = frozenset()
        self._taken_over = False
        self._membership = partitions.ownership.membership
        self._task: asyncio.Task[None] | None = None
        self.progress: dict[str, Any] = {}
        """How far a running takeover is, for `/readyz`."""
        self.failures = 0
        """Takeovers that failed and were tried again."""

    async def revoke(self, loop: Loop, patience: float, for_effects: float = 0.0) -> None:
        """Partitions are being taken away: the batch in hand is finished first, or after `patience` seconds given up;
        and before it the effects that must not be cancelled, or so many of these seconds `for_effects`.

        A batch that is given up here cannot take effect later: its offsets are refused under its old generation.
        """
        await self._cancel()
        until = elapsed_s() + patience
        # The loop goes on meanwhile: it decides that they are done.
        await self._partitions.side_effects.finish(for_effects if self._ownership.running else 0)
        self._poller.hold()
        failpoints.reach("handover.giving_up")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(until - elapsed_s()):
                await loop.idle()
        self._ownership.lose()
        self._partitions.side_effects.suspend()
        self._leave()
        await self._cancel()  # again: a batch that was given up meanwhile may have asked for a takeover
        self._metrics.owned(0)
        self._partitions.watches.touch_all()
        failpoints.reach("handover.given_up")

    async def restore_and_resume(
        self, assigned: Collection[TopicPartition], membership: Membership, standby: Collection[int] = ()
    ) -> None:
        """Partitions were assigned: takes them over in the background, so that the group is not kept waiting.

        Copies of the partitions in `standby` are kept up to date once that is done: it comes first.
        """
        await self._cancel()
        self._ownership.lose()
        self._leave()
        if self._standbys is not None:
            self._standbys.follow(())
        self._partitions.side_effects.suspend()
        self._partitions.side_effects.keep(self._continued(assigned, membership))
        self._partitions.side_effects.resume()
        self._assigned, self._membership, self._standby = tuple(sorted(assigned)), membership, frozenset(standby)
        self._poller.hold()
        self._task = asyncio.create_task(self._until_done(), name="takeover")

    def retry(self, after: float = 0.0) -> None:
        """Takes the same partitions over anew, in `after` seconds: the broker tells how the last batch ended."""
        self._poller.hold()
        self._leave()
        self._partitions.side_effects.suspend()
        self._metrics.owned(0)
        self._partitions.watches.touch_all()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._until_done(after), name="takeover")

    async def stop(self) -> None:
        await self._cancel()

    def _continued(self, assigned: Collection[TopicPartition], membership: Membership) -> set[int]:
        """Of the partitions that are assigned, those that nobody else has owned since they were this worker's."""
        before = self._membership
        if (membership.member_id, membership.generation) != (before.member_id, before.generation + 1):
            return set()
        return self._partitions.numbers(assigned) & self._partitions.numbers(self._assigned)

    def _leave(self) -> None:
        if self._taken_over and self._standbys is not None:
            self._standbys.were_owned(self._partitions.numbers(self._assigned))
        self._taken_over = False

    async def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _until_done(self, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        while True:
            try:
                await self._take_over()
            except asyncio.CancelledError:
                raise
            except RecordsLost:  # the worker ends by it, and has passed over nothing
                return
            except StoreError as error:  # nothing here can mend it
                log.exception("state cannot be opened")
                self._failed(error)
                return
            except Exception as error:  # the broker is away or moving: it is asked again until partitions change hands
                log.warning("takeover failed, trying again error=%r", error)
                self.failures += 1
                await asyncio.sleep(self.RETRY_S)
            else:
                return

    async def _take_over(self) -> None:
        start = elapsed_s()
        partitions = self._partitions.numbers(self._assigned)
        if beyond := {tp.topic for tp in self._assigned if tp.partition not in partitions}:
            log.error(
                "topics have more partitions than PARTITIONS, records in those are set aside topics=%s PARTITIONS=%s",
                ",".join(sorted(beyond)),
                self._partitions.count,
            )
        self._partitions.stores.keep(self._standby.union(partitions))
        if self._assigned:
            failpoints.reach("handover.begun")
            positions = await self._restorer.committed(self._assigned)
            failpoints.reach("handover.offsets")
            stores = {
                (t, p): self._partitions.stores.open(t, p)
                for t in self._partitions.topology.tables
                for p in sorted(partitions)
            }
            failpoints.reach("handover.opened")
            restored = await self._restore(stores)
            failpoints.reach("handover.restored")
            backlog = await self._restorer.ends(self._assigned)
            failpoints.reach("handover.backlog")
            self._partitions.own(self._membership, positions, backlog, stores)
            failpoints.reach("handover.taken")
            self._poller.read_from(positions)
        else:
            restored = 0
            self._partitions.own(self._membership, {}, {}, {})
        self.progress = {}
        self._taken_over = True
        if self._standbys is not None:
            self._standbys.follow(self._standby)
        seconds = elapsed_s() - start
        self._metrics.restore_took(seconds)
        self._metrics.owned(len(self._assigned))
        log.info("took over partitions=%s restored=%d seconds=%.2f", sorted(partitions), restored, seconds)
        self._partitions.watches.touch_all()

    async def _restore(self, stores: Mapping[tuple[str, int], Store]) -> int:
        applied, told = 0, elapsed_s()

        def progress(records: int, left: int) -> None:
            nonlocal applied, told
            applied += records
            self.progress = {"restored": applied, "left": left}
            if elapsed_s() - told > 2:
                told = elapsed_s()
                log.info("restoring restored=%d left=%d", applied, left)

        by_changelog = {self._partitions.changelog(*place): store for place, store in stores.items()}
        await self._restorer.restore(by_changelog, progress)
        self._metrics.restored(applied)
        return applied
