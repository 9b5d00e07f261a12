"""Standby replicas: stores that follow the changelogs of other workers.

They serve stale reads. When this worker gets the partition, the restore has few records to read.
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
    confirmed_ends,
    least_ends,
    report_unreadable,
    start_offsets,
)
from runtime.state.stores import Store, Stores

log = logging.getLogger(__name__)


class StandbyReplicas:
    """Keeps the stores of some partitions up to date with their changelogs.

    Arguments:
        topology: the services whose tables are followed.
        stores: the replicas. Nobody else may write the stores of followed partitions.
        broker: reads the changelogs; not shared.
        metrics: counts records and lag.
        confirmed: when the group last confirmed the membership of this worker, on the clock of the event loop.
        lost: reports lost records of changelogs.
    """

    MEASURE_S = 1.0
    """Seconds between two measurements of the lag."""

    MEASURE_TIMEOUT_S = 10.0
    """Seconds that the broker may take to answer a measurement. Then replication starts anew."""

    RETRY_S = 1.0
    """Seconds before failed replication starts anew."""

    CONFIRMED_S = 60.0
    """Seconds since the group confirmed the membership within which stores of revoked partitions count as complete."""

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

    def mark_complete(self, partitions: Collection[int]) -> None:
        """Marks the stores of revoked partitions as complete as of the last confirmation by the group."""
        at = self._confirmed()
        for partition in partitions:
            for table, changelog in self._changelogs.items():
                self._complete[TopicPartition(changelog, partition)] = at
                store = self._stores.peek(table, partition)
                if store is not None and store.offset is not None and elapsed_s() - at < self.CONFIRMED_S:
                    store.mark_complete(store.offset)

    def follow(self, partitions: Collection[int]) -> None:
        """Follows these partitions and no others. Once this returns, stores of the others are not written."""
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
        last_error = ""
        while self._task is mine:  # aiokafka may swallow a cancellation
            try:
                await self._follow(lambda: self._task is mine)
            except RecordsLost:  # ends the worker
                return
            except Exception as error:  # passes, or shows as lag: nothing waits for a replica
                level = logging.DEBUG if repr(error) == last_error else logging.WARNING
                log.log(level, "standby replication failed, retrying error=%r", error)
                last_error = repr(error)
                await asyncio.sleep(self.RETRY_S)

    async def _follow(self, active: Callable[[], bool]) -> None:
        stores = {
            TopicPartition(changelog, partition): self._stores.open(table, partition)
            for table, changelog in self._changelogs.items()
            for partition in sorted(self._partitions)
        }
        starts = await self._broker.log_starts(stores)
        ends = await self._broker.log_ends(stores, committed=False)
        ends = await confirmed_ends(self._broker, least_ends(stores), ends)
        if not active():
            return
        ids = await self._broker.log_ids(frozenset(self._changelogs.values()))
        at = await start_offsets(stores, starts, ends, ids, self._lost, LossPath.STANDBY)
        if not active():
            return
        async with self._broker.reading(at) as reading:
            measured = elapsed_s() - self.MEASURE_S
            while active():
                rows = await reading.rows()
                if not active():
                    return
                await report_unreadable(rows, self._lost, LossPath.STANDBY)
                if not active():
                    return
                self._apply(stores, rows)
                if elapsed_s() - measured >= self.MEASURE_S:
                    measured = elapsed_s()
                    await self._measure(stores, reading, active)
                await asyncio.sleep(0)  # `rows` returns buffered records without yielding

    def _apply(
        self, stores: Mapping[TopicPartition, Store], fetched: Mapping[TopicPartition, Sequence[ChangelogRow]]
    ) -> None:
        for tp, rows in fetched.items():
            apply(stores[tp], rows)
            self._metrics.followed(len(rows))

    async def _measure(
        self, stores: Mapping[TopicPartition, Store], reading: Reading, active: Callable[[], bool]
    ) -> None:
        """Measures how far the replicas are behind."""
        asked = elapsed_s()
        async with asyncio.timeout(self.MEASURE_TIMEOUT_S):
            ends = await self._broker.log_ends(stores, committed=True)
        if not active():
            return
        positions: Offsets = reading.positions()
        for tp, store in stores.items():
            self._lag[tp] = lag = max(0, ends[tp] - positions.get(tp, 0))
            if not lag:
                self._complete[tp] = asked
                if positions[tp]:
                    store.mark_complete(positions[tp] - 1)
        self._metrics.standby(len(self._partitions), sum(self._lag.values()))
