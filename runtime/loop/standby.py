"""Standby copies: changelogs that other workers write, followed into stores here, for reads and for a takeover.

Nothing is decided on a copy. It is brought to the end of its changelog by the takeover like any other store, and has
less to read.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from runtime.common.clock import elapsed_s
from runtime.data_loss.losses import LossPath, LossReporter, RecordsLost
from runtime.metrics.loop import LoopMetrics
from runtime.model.records import Offsets, TopicPartition
from runtime.model.topology import Topology
from runtime.state.restore import (
    ChangelogRow,
    LogReader,
    Reading,
    apply,
    needed_by,
    positions_of,
    report_unreadable,
    sure_ends,
)
from runtime.state.stores import Store, Stores

log = logging.getLogger(__name__)


class StandbyReplicas:
    """Keeps the stores of some partitions up to date with their changelogs.

    Arguments:
        plan: the services whose tables are followed.
        stores: where the copies are. Nobody else may write those of partitions that are followed.
        broker: asked and read here alone.
        confirmed: when the group last confirmed that this worker owns what it does, on the event loop's clock.
        lost: told of what the changelogs no longer have.
    """

    LOOK_S = 1.0
    """Between two looks at how far behind the copies are."""

    PATIENCE_S = 10.0
    """How long the broker may take to tell that, before the reading starts anew."""

    RETRY_S = 1.0

    SURE_S = 60.0
    """How long ago the group may have confirmed an owner for its stores to count as complete now, give or take."""

    def __init__(
        self,
        topology: Topology,
        stores: Stores,
        broker: LogReader,
        metrics: LoopMetrics,
        confirmed: Callable[[], float],
        lost: LossReporter | None = None,
    ) -> None:
        self._changelogs = {table: topology.tables[table].changelog for table in topology.tables}
        self._stores = stores
        self._broker = broker
        self._metrics = metrics
        self._confirmed = confirmed
        self._lost = LossReporter(metrics) if lost is None else lost
        self._partitions: frozenset[int] = frozenset()
        self._task: asyncio.Task[None] | None = None
        self._lag: dict[TopicPartition, int] = {}
        self._complete: dict[TopicPartition, float] = {}

    @property
    def partitions(self) -> frozenset[int]:
        """Those that are followed now."""
        return self._partitions

    @property
    def lag(self) -> dict[int, int]:
        """How many offsets each partition is behind, over all its tables; those not known yet are left out."""
        result: dict[int, int] = {}
        for tp, lag in self._lag.items():
            result[tp.partition] = result.get(tp.partition, 0) + lag
        return result

    def age(self, table: str, partition: int) -> float | None:
        """For how many seconds a copy may have missed what was written; `None` if it was never seen to be complete."""
        at = self._complete.get(TopicPartition(self._changelogs[table], partition))
        return None if at is None else max(0.0, elapsed_s() - at)

    def were_owned(self, partitions: Collection[int]) -> None:
        """Tells that the stores of these partitions held all there was, as long as the group confirmed it."""
        at = self._confirmed()
        for partition in partitions:
            for table, changelog in self._changelogs.items():
                self._complete[TopicPartition(changelog, partition)] = at
                store = self._stores.peek(table, partition)
                if store is not None and store.offset is not None and elapsed_s() - at < self.SURE_S:
                    store.is_complete(store.offset)

    def follow(self, partitions: Collection[int]) -> None:
        """From now on follows these partitions and no others: stores of those are left alone once this returns."""
        previous, self._task = self._task, None
        if previous is not None:
            previous.cancel()
        self._partitions = frozenset(partitions) if self._changelogs else frozenset()
        self._lag = {}
        self._metrics.standby(len(self._partitions), 0)
        if self._partitions:
            self._task = asyncio.create_task(self._until_cancelled(previous), name="standby")

    async def stop(self) -> None:
        """Returns once nothing is read any more."""
        task = self._task
        self.follow(())
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    async def _until_cancelled(self, previous: "asyncio.Task[None] | None") -> None:
        if previous is not None:  # it reads through the same connection
            await asyncio.wait({previous})
        mine = asyncio.current_task()
        told = ""
        while self._task is mine:  # a client may swallow that it is cancelled
            try:
                await self._follow(lambda: self._task is mine)
            except RecordsLost:  # the worker ends by it
                return
            except Exception as error:  # whatever keeps a copy from being read passes, or shows as lag; nobody waits
                level = logging.DEBUG if repr(error) == told else logging.WARNING
                log.log(level, "following failed, trying again error=%r", error)
                told = repr(error)
                await asyncio.sleep(self.RETRY_S)

    async def _follow(self, still: Callable[[], bool]) -> None:
        stores = {
            TopicPartition(changelog, partition): self._stores.open(table, partition)
            for table, changelog in self._changelogs.items()
            for partition in sorted(self._partitions)
        }
        starts = await self._broker.log_starts(stores)
        ends = await self._broker.log_ends(stores, committed=False)
        ends = await sure_ends(self._broker, needed_by(stores), ends)
        if not still():
            return
        ids = await self._broker.log_ids(frozenset(self._changelogs.values()))
        at = await positions_of(stores, starts, ends, ids, self._lost, LossPath.STANDBY)
        if not still():
            return
        async with self._broker.reading(at) as reading:
            looked = elapsed_s() - self.LOOK_S
            while still():
                rows = await reading.rows()
                if not still():
                    return
                await report_unreadable(rows, self._lost, LossPath.STANDBY)
                if not still():
                    return
                self._apply(stores, rows)
                if elapsed_s() - looked >= self.LOOK_S:
                    looked = elapsed_s()
                    await self._look(stores, reading, still)
                await asyncio.sleep(0)  # rows that have come already are had without waiting, and others want to run

    def _apply(
        self, stores: Mapping[TopicPartition, Store], fetched: Mapping[TopicPartition, Sequence[ChangelogRow]]
    ) -> None:
        for tp, rows in fetched.items():
            apply(stores[tp], rows)
            self._metrics.followed(len(rows))

    async def _look(self, stores: Mapping[TopicPartition, Store], reading: Reading, still: Callable[[], bool]) -> None:
        """Notes how far behind the copies are."""
        asked = elapsed_s()
        async with asyncio.timeout(self.PATIENCE_S):
            ends = await self._broker.log_ends(stores, committed=True)
        if not still():
            return
        positions: Offsets = reading.positions()
        for tp, store in stores.items():
            self._lag[tp] = lag = max(0, ends[tp] - positions.get(tp, 0))
            if not lag:
                self._complete[tp] = asked
                if positions[tp]:
                    store.is_complete(positions[tp] - 1)
        self._metrics.standby(len(self._partitions), sum(self._lag.values()))
