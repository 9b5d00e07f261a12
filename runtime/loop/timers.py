"""The timer queue of a worker: the timer rows of its services, ordered by time."""

import heapq
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from runtime.model.service import ScheduledTimer, Service
from runtime.model.topology import Topology
from runtime.state.stores import Store


class DueTimer(NamedTuple):
    """A timer that is due."""

    at: datetime
    partition: int
    key: str
    service: Service


class _Key(NamedTuple):
    """Identifies a timer."""

    partition: int
    key: str
    table: str


class Timers:
    """The timers of the owned partitions, in memory, ordered by time.

    A heap cannot remove cancelled and rescheduled entries. They are skipped when they come up, and the heap is rebuilt
    once they are the majority.

    Timers of a partition on hold do not come due: the message that would cancel them may be in its backlog.
    """

    def __init__(self, topology: Topology) -> None:
        self._services = {s.timer_table.name: s for s in topology.services if s.all_timers}
        self._timers: dict[_Key, datetime] = {}
        self._heap: list[tuple[datetime, _Key]] = []
        self._on_hold: set[int] = set()

    def __len__(self) -> int:
        return len(self._timers)

    def clear(self) -> None:
        """Removes all timers, before partitions are restored."""
        self._timers.clear()
        self._heap.clear()
        self._on_hold.clear()

    def hold(self, partitions: Iterable[int]) -> None:
        """Puts the timers of these partitions on hold."""
        self._on_hold.update(partitions)

    def release(self, partitions: Iterable[int]) -> None:
        """Lets the timers of these partitions come due from now on."""
        self._on_hold.difference_update(partitions)
        self._rebuild()

    def load(self, table: str, partition: int, store: Store) -> None:
        """Adds the timers of a restored store. Other tables are ignored."""
        if table in self._services:
            for key, value in store.items():
                self._add(_Key(partition, key.decode(), table), ScheduledTimer.from_json(value).at)

    def apply(self, table: str, partition: int, rows: Mapping[bytes, bytes | None]) -> None:
        """Adds, moves and removes timers as a committed batch did. Other tables are ignored."""
        if table in self._services:
            for key, value in rows.items():
                timer = _Key(partition, key.decode(), table)
                if value is None:
                    self._timers.pop(timer, None)
                else:
                    self._add(timer, ScheduledTimer.from_json(value).at)
            self._rebuild_if_mostly_stale()

    def next(self) -> datetime | None:
        """When the next timer is due; `None` if there is none."""
        self._skip_stale()
        return self._heap[0][0] if self._heap else None

    def due(self, now: datetime, limit: int) -> list[DueTimer]:
        """Up to `limit` due timers, oldest first. Each is returned once."""
        result: list[DueTimer] = []
        while len(result) < limit and (at := self.next()) is not None and at <= now:
            _, timer = heapq.heappop(self._heap)
            result.append(DueTimer(at, timer.partition, timer.key, self._services[timer.table]))
        return result

    def _add(self, timer: _Key, at: datetime) -> None:
        self._timers[timer] = at
        if timer.partition not in self._on_hold:
            heapq.heappush(self._heap, (at, timer))

    def _skip_stale(self) -> None:
        while self._heap and self._timers.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)

    def _rebuild_if_mostly_stale(self) -> None:
        if len(self._heap) > 2 * len(self._timers) + 1000:
            self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(at, timer) for timer, at in self._timers.items() if timer.partition not in self._on_hold]
        heapq.heapify(self._heap)
