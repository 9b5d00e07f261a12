"""Waiting for rows to change: any number of watchers a row, none left behind when one goes away."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from runtime.model.service import Table


class Watch:
    """Interest in one row. Level-triggered: a change that comes between `wait`s is not lost."""

    def __init__(self) -> None:
        self._touched = asyncio.Event()

    def touch(self) -> None:
        self._touched.set()

    async def wait(self, timeout: float) -> bool:
        """Returns True at the next change, or False after `timeout` seconds without one."""
        try:
            async with asyncio.timeout(timeout):
                await self._touched.wait()
        except TimeoutError:
            return False
        self._touched.clear()
        return True


class Watches:
    """All interest in a worker's rows."""

    def __init__(self) -> None:
        self._watches: dict[tuple[str, bytes], set[Watch]] = {}

    def __len__(self) -> int:
        return sum(len(watches) for watches in self._watches.values())

    @contextmanager
    def watch(self, table: Table[Any], key: str) -> Iterator[Watch]:
        """Registers a watch for the time of a `with` block."""
        row, watch = (table.name, key.encode()), Watch()
        self._watches.setdefault(row, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[row]
            watches.discard(watch)
            if not watches:
                del self._watches[row]

    def changed(self, table: str, rows: Mapping[bytes, bytes | None]) -> None:
        """Touches whoever watches one of these rows."""
        if self._watches:
            for key in rows:
                for watch in self._watches.get((table, key), ()):
                    watch.touch()

    def touch_all(self) -> None:
        """Makes everybody look again: partitions came or went, or the worker stops."""
        for watches in self._watches.values():
            for watch in watches:
                watch.touch()
