"""Time as events: which keys asked to be woken, and when. Wishes are rows like any other; this is their calendar."""

import heapq
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from runtime.plan import Plan
from runtime.service import Service, Wake
from runtime.state import Store


class Due(NamedTuple):
    """A wish whose time has come."""

    at: datetime
    partition: int
    key: str
    service: Service


class Timers:
    """The calendar of the partitions a worker owns. What was withdrawn or moved leaves it when its time comes."""

    def __init__(self, plan: Plan) -> None:
        self._services = {s.timers.name: s for s in plan.services if s.on_wake}
        self._heap: list[tuple[datetime, int, str, str]] = []

    def clear(self) -> None:
        """Forgets all, before partitions are taken over."""
        self._heap.clear()

    def load(self, table: str, partition: int, store: Store) -> None:
        """Adds the wishes found in a store, when its partition is taken over. Other tables are passed over."""
        if table in self._services:
            for key, value in store.items():
                self._push(Wake.from_json(value).at, partition, key.decode(), table)

    def apply(self, table: str, partition: int, rows: Mapping[bytes, bytes | None]) -> None:
        """Notes what a committed batch wished. Other tables are passed over."""
        if table in self._services:
            for key, value in rows.items():
                if value is not None:
                    self._push(Wake.from_json(value).at, partition, key.decode(), table)

    def next(self) -> datetime | None:
        """When the next wish may come due; `None` when there is none."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: datetime, limit: int) -> list[Due]:
        """Up to `limit` wishes whose time has come, oldest first.."""
        result: list[Due] = []
        while self._heap and self._heap[0][0] <= now and len(result) < limit:
            at, partition, key, table = heapq.heappop(self._heap)
            result.append(Due(at, partition, key, self._services[table]))
        return result

    def _push(self, at: datetime, partition: int, key: str, table: str) -> None:
        heapq.heappush(self._heap, (at, partition, key, table))
