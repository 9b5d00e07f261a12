"""Time as events: which keys asked to be woken, and when. Wishes are rows like any other; this is their calendar."""

import heapq
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from runtime.model.service import ScheduledTimer, Service
from runtime.model.topology import Topology
from runtime.state.stores import Store


class DueTimer(NamedTuple):
    """A wish whose time has come."""

    at: datetime
    partition: int
    key: str
    service: Service


class _Key(NamedTuple):
    """Whose wish it is."""

    partition: int
    key: str
    table: str


class Timers:
    """The calendar of the partitions a worker owns, in memory: one entry a wish.

    A heap cannot let go of what is withdrawn or moved, so such entries are passed over when they come up, and all of
    them are swept out once they are the majority.

    Wishes of a partition on hold do not come due: what they wait for may stand in a log that is yet to be read.
    """

    def __init__(self, topology: Topology) -> None:
        self._services = {s.timers.name: s for s in topology.services if s.on_timer}
        self._wishes: dict[_Key, datetime] = {}
        self._heap: list[tuple[datetime, _Key]] = []
        self._on_hold: set[int] = set()

    def __len__(self) -> int:
        return len(self._wishes)

    def clear(self) -> None:
        """Forgets all, before partitions are taken over."""
        self._wishes.clear()
        self._heap.clear()
        self._on_hold.clear()

    def hold(self, partitions: Iterable[int]) -> None:
        """Keeps wishes of these partitions back."""
        self._on_hold.update(partitions)

    def release(self, partitions: Iterable[int]) -> None:
        """Lets wishes of these partitions come due from now on."""
        self._on_hold.difference_update(partitions)
        self._rebuild()

    def load(self, table: str, partition: int, store: Store) -> None:
        """Adds the wishes found in a store, when its partition is taken over. Other tables are passed over."""
        if table in self._services:
            for key, value in store.items():
                self._note(_Key(partition, key.decode(), table), ScheduledTimer.from_json(value).at)

    def apply(self, table: str, partition: int, rows: Mapping[bytes, bytes | None]) -> None:
        """Notes what a committed batch wished. Other tables are passed over."""
        if table in self._services:
            for key, value in rows.items():
                wish = _Key(partition, key.decode(), table)
                if value is None:
                    self._wishes.pop(wish, None)
                else:
                    self._note(wish, ScheduledTimer.from_json(value).at)
            self._sweep()

    def next(self) -> datetime | None:
        """When the next wish comes due; `None` when there is none."""
        self._pass_over()
        return self._heap[0][0] if self._heap else None

    def due(self, now: datetime, limit: int) -> list[DueTimer]:
        """Up to `limit` wishes whose time has come, oldest first. Each is told once."""
        result: list[DueTimer] = []
        while len(result) < limit and (at := self.next()) is not None and at <= now:
            _, wish = heapq.heappop(self._heap)
            result.append(DueTimer(at, wish.partition, wish.key, self._services[wish.table]))
        return result

    def _note(self, wish: _Key, at: datetime) -> None:
        self._wishes[wish] = at
        if wish.partition not in self._on_hold:
            heapq.heappush(self._heap, (at, wish))

    def _pass_over(self) -> None:
        while self._heap and self._wishes.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)

    def _sweep(self) -> None:
        if len(self._heap) > 2 * len(self._wishes) + 1000:
            self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(at, wish) for wish, at in self._wishes.items() if wish.partition not in self._on_hold]
        heapq.heapify(self._heap)
