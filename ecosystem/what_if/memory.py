"""Rows of a variant in memory: objects while they are in use, JSON once many others were written after them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeVar, cast

from runtime.loop.overlay import BatchOverlay, TablePartition
from runtime.model.service import TIMERS_CHANGELOG, Table
from runtime.model.topology import Topology
from runtime.state.stores import MemoryStores
from schemas.wire import Message

M = TypeVar("M", bound=Message)

HOT_ROWS = 50_000
"""Writes after which all rows become JSON: a row takes some 400 bytes then, as an object several times as much."""

Undo = list[tuple[TablePartition, str, Message | None]]
"""Rows before they were written, in the order of the writes; `None`: there was none."""

_START = datetime(1970, 1, 1, tzinfo=UTC)


class Memory(BatchOverlay):
    """An overlay that is never committed: the state of all services of a variant."""

    __slots__ = ("_cold", "_timers", "_written")

    def __init__(self, topology: Topology, partitions: int) -> None:
        super().__init__(topology, partitions, _START, MemoryStores().open)
        self._cold: dict[TablePartition, dict[str, bytes]] = {}
        self._written = 0
        self._timers = {table.name for table in topology.tables.values() if table.changelog.endswith(TIMERS_CHANGELOG)}

    def read(self, table: Table[M], partition: int, key: str) -> M | None:
        where = (table.name, partition)
        rows = self.changes.get(where)
        row = None if rows is None else rows.get(key)
        return cast("M | None", self._warm(where, key) if row is None else row)

    def keep(self, writes: Mapping[tuple[str, str], Message | None], partition: int, undo: Undo | None) -> None:
        """Writes what a processor has changed. Adds the rows before to `undo`."""
        changes = self.changes
        for (table, key), row in writes.items():
            where = (table, partition)
            rows = changes.get(where)
            if rows is None:
                rows = changes[where] = {}
            before = rows.get(key)
            if before is None:
                before = self._warm(where, key)
            if undo is not None:
                undo.append((where, key, before))
            if row is not None:
                rows[key] = row
            elif before is not None:
                del rows[key]
        self._written += len(writes)
        if self._written > HOT_ROWS and undo is None:
            self._cool()

    def roll_back(self, undo: Undo) -> None:
        """Undoes writes, the last one first, and empties `undo`."""
        for where, key, row in reversed(undo):
            if row is None:
                self.changes[where].pop(key, None)
            else:
                self.changes[where][key] = row
        undo.clear()

    def _warm(self, where: TablePartition, key: str) -> Message | None:
        """Turns a row that is JSON into an object. Returns `None` if there is none."""
        cold = self._cold.get(where)
        raw = cold.pop(key, None) if cold else None
        if raw is None:
            return None
        row: Message = self.topology.tables[where[0]].model.from_json(raw)
        self.changes.setdefault(where, {})[key] = row
        return row

    def _cool(self) -> None:
        """Turns all rows into JSON but those of timers, which are listed."""
        self._written = 0
        for where, rows in self.changes.items():
            if where[0] not in self._timers:
                cold = self._cold.setdefault(where, {})
                cold.update((key, row.to_json()) for key, row in rows.items() if row is not None)
                rows.clear()
