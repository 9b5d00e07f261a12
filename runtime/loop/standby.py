"""Standby replicas: stores that follow the changelogs of other workers, for stale reads and for a fast restore.

A restore brings a replica to the end of its changelog like any other store, with fewer records to read.
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
        topology: the services whose tables are followed.
        stores: the replicas. Nobody else may write the stores of followed partitions.
        broker: reads the changelogs; used here alone.
        metrics: counts records and lag.
        confirmed: when the group last confirmed the membership of this worker, on the clock of the event loop.
        lost: reports the records that changelogs no longer have.
    """

    LOOK_S = 1.0
    """Seconds between two measurements of the lag."""

    PATIENCE_S = 10.0
    """Seconds that the broker may take to answer a measurement, before reading starts again."""

    RETRY_S = 1.0

    SURE_S = 60.0
    """Seconds since the last confirmation of the group within which the stores of an owner count as complete."""

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
        """The partitions that are followed now."""
        return self._partitions

    @property
    def lag(self) -> dict[int, int]:
        """Offsets by which each partition is behind, over all its tables. Unmeasured partitions are left out."""
        result: dict[int, int] = {}
        for tp, lag in self._lag.items():
            result[tp.partition] = result.get(tp.partition, 0) + lag
        return result

    def age(self, table: str, partition: int) -> float | None:
        """Seconds for which a replica may have missed writes; `None` if it was never complete."""
        at = self._complete.get(TopicPartition(self._changelogs[table], partition))
        return None if at is None else max(0.0, elapsed_s() - at)

    def were_owned(self, partitions: Collection[int]) -> None:
        """The stores of these partitions were complete until the last confirmation: this worker owned them."""
        at = self._confirmed()
        for partition in partitions:
            for table, changelog in self._changelogs.items():
                self._complete[TopicPartition(changelog, partition)] = at
                store = self._stores.peek(table, partition)
                if store is not None and store.offset is not None and elapsed_s() - at < self.SURE_S:
                    store.is_complete(store.offset)

    def follow(self, partitions: Collection[int]) -> None:
        """Follows these partitions and no others. Stores of the others are not written any more once this returns."""
        previous, self._task = self._task, None
        if previous is not None:
            previous.cancel()
        self._partitions = frozenset(partitions) if self._changelogs else frozenset()
        self._lag = {}
        self._metrics.standby(len(self._partitions), 0)
        if self._partitions:
            self._task = asyncio.create_task(self._until_cancelled(previous), name="standby")

    async def stop(self) -> None:
        """Stops following, and waits until reading has ended."""
        task = self._task
        self.follow(())
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    async def _until_cancelled(self, previous: "asyncio.Task[None] | None") -> None:
        if previous is not None:  # it uses the same connection
            await asyncio.wait({previous})
        mine = asyncio.current_task()
        told = ""
        while self._task is mine:  # aiokafka may swallow a cancellation
            try:
                await self._follow(lambda: self._task is mine)
            except RecordsLost:  # the worker ends because of it
                return
            except Exception as error:  # passes, or shows as lag; nobody waits for a replica
                level = logging.DEBUG if repr(error) == told else logging.WARNING
                log.log(level, "standby replication failed, retrying error=%r", error)
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
                    await self._measure(stores, reading, still)
                await asyncio.sleep(0)  # `rows` returns buffered records without yielding

    def _apply(
        self, stores: Mapping[TopicPartition, Store], fetched: Mapping[TopicPartition, Sequence[ChangelogRow]]
    ) -> None:
        for tp, rows in fetched.items():
            apply(stores[tp], rows)
            self._metrics.followed(len(rows))

    async def _measure(
        self, stores: Mapping[TopicPartition, Store], reading: Reading, still: Callable[[], bool]
    ) -> None:
        """Measures how far the replicas are behind."""
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
