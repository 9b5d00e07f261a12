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
from runtime.loop.ownership import Ownership
from runtime.loop.timers import Timers
from runtime.metrics.loop import LoopMetrics
from runtime.model.records import Membership, TopicPartition
from runtime.model.topology import Topology
from runtime.model.watch import Watches
from runtime.side_effects.dispatcher import SideEffects
from runtime.state.restore import Restorer
from runtime.state.stores import Store, Stores

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
    """Takes over and gives up partitions; the only writer of `Ownership`, with the loop."""

    RETRY_S = 0.5

    def __init__(
        self,
        topology: Topology,
        ownership: Ownership,
        stores: Stores,
        timers: Timers,
        side_effects: SideEffects,
        watches: Watches,
        logs: Restorer,
        reader: PollingControl,
        metrics: LoopMetrics,
        failed: Callable[[BaseException], None],
        copies: Standbys | None = None,
        partitions: int | None = None,
    ) -> None:
        self._topology = topology
        self._partitions = partitions
        self._ownership = ownership
        self._stores = stores
        self._timers = timers
        self._side_effects = side_effects
        self._watches = watches
        self._logs = logs
        self._reader = reader
        self._metrics = metrics
        self._failed = failed
        self._copies = copies
        self._assigned: tuple[TopicPartition, ...] = ()
        self._standby: frozenset[int] = frozenset()
        self._taken_over = False
        self._membership = ownership.membership
        self._task: asyncio.Task[None] | None = None
        self.progress: dict[str, Any] = {}
        """How far a running takeover is, for `/readyz`."""
        self.failures = 0
        """Takeovers that failed and were tried again."""

    async def give_up(self, loop: Loop, patience: float, for_effects: float = 0.0) -> None:
        """Partitions are being taken away: the batch in hand is finished first, or after `patience` seconds given up;
        and before it the effects that must not be cancelled, or so many of these seconds `for_effects`.

        A batch that is given up here cannot take effect later: its offsets are refused under its old generation.
        """
        await self._cancel()
        until = elapsed_s() + patience
        # The loop goes on meanwhile: it decides that they are done.
        await self._side_effects.finish(for_effects if self._ownership.running else 0)
        self._reader.hold()
        failpoints.reach("handover.giving_up")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(until - elapsed_s()):
                await loop.idle()
        self._ownership.lose()
        self._side_effects.suspend()
        self._leave()
        await self._cancel()  # again: a batch that was given up meanwhile may have asked for a takeover
        self._metrics.owned(0)
        self._watches.touch_all()
        failpoints.reach("handover.given_up")

    async def take_over(
        self, assigned: Collection[TopicPartition], membership: Membership, standby: Collection[int] = ()
    ) -> None:
        """Partitions were assigned: takes them over in the background, so that the group is not kept waiting.

        Copies of the partitions in `standby` are kept up to date once that is done: it comes first.
        """
        await self._cancel()
        self._ownership.lose()
        self._leave()
        if self._copies is not None:
            self._copies.follow(())
        self._side_effects.suspend()
        self._side_effects.keep(self._continued(assigned, membership))
        self._side_effects.resume()
        self._assigned, self._membership, self._standby = tuple(sorted(assigned)), membership, frozenset(standby)
        self._reader.hold()
        self._task = asyncio.create_task(self._until_done(), name="takeover")

    def again(self, after: float = 0.0) -> None:
        """Takes the same partitions over anew, in `after` seconds: the broker tells how the last batch ended."""
        self._reader.hold()
        self._leave()
        self._side_effects.suspend()
        self._metrics.owned(0)
        self._watches.touch_all()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._until_done(after), name="takeover")

    async def stop(self) -> None:
        await self._cancel()

    def _continued(self, assigned: Collection[TopicPartition], membership: Membership) -> set[int]:
        """Of the partitions that are assigned, those that nobody else has owned since they were this worker's."""
        before = self._membership
        if (membership.member_id, membership.generation) != (before.member_id, before.generation + 1):
            return set()
        return self._numbers(assigned) & self._numbers(self._assigned)

    def _numbers(self, assigned: Collection[TopicPartition]) -> set[int]:
        """The partitions that have state: not those that one topic was given later, where no key belongs."""
        return {tp.partition for tp in assigned if self._partitions is None or tp.partition < self._partitions}

    def _leave(self) -> None:
        if self._taken_over and self._copies is not None:
            self._copies.were_owned(self._numbers(self._assigned))
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
        partitions = self._numbers(self._assigned)
        if beyond := {tp.topic for tp in self._assigned if tp.partition not in partitions}:
            log.error(
                "topics have more partitions than PARTITIONS, records in those are set aside topics=%s PARTITIONS=%s",
                ",".join(sorted(beyond)),
                self._partitions,
            )
        self._stores.keep(self._standby.union(partitions))
        if self._assigned:
            failpoints.reach("handover.begun")
            positions = await self._logs.committed(self._assigned)
            failpoints.reach("handover.offsets")
            stores = {(t, p): self._stores.open(t, p) for t in self._topology.tables for p in sorted(partitions)}
            failpoints.reach("handover.opened")
            restored = await self._restore(stores)
            failpoints.reach("handover.restored")
            backlog = await self._logs.ends(self._assigned)
            failpoints.reach("handover.backlog")
            self._ownership.take(self._membership, positions, backlog, stores)
            self._timers.clear()
            self._timers.hold(self._ownership.behind)
            self._side_effects.hold(self._ownership.behind)
            for (table, partition), store in stores.items():
                self._timers.load(table, partition, store)
                self._side_effects.load(table, partition, store)
            failpoints.reach("handover.taken")
            self._reader.read_from(positions)
        else:
            restored = 0
            self._timers.clear()
            self._ownership.take(self._membership, {}, {}, {})
        self.progress = {}
        self._taken_over = True
        if self._copies is not None:
            self._copies.follow(self._standby)
        seconds = elapsed_s() - start
        self._metrics.taken_over(seconds)
        self._metrics.owned(len(self._assigned))
        log.info("took over partitions=%s restored=%d seconds=%.2f", sorted(partitions), restored, seconds)
        self._watches.touch_all()

    async def _restore(self, stores: Mapping[tuple[str, int], Store]) -> int:
        applied, told = 0, elapsed_s()

        def progress(records: int, left: int) -> None:
            nonlocal applied, told
            applied += records
            self.progress = {"restored": applied, "left": left}
            if elapsed_s() - told > 2:
                told = elapsed_s()
                log.info("restoring restored=%d left=%d", applied, left)

        by_changelog = {
            TopicPartition(self._topology.tables[table].changelog, partition): store
            for (table, partition), store in stores.items()
        }
        await self._logs.restore(by_changelog, progress)
        self._metrics.restored(applied)
        return applied
