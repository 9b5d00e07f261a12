"""Watches: HTTP handlers wait for changes of rows."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from runtime.model.service import Table


class Watch:
    """A watch on one row. A change between two calls of `wait` is not lost."""

    def __init__(self) -> None:
        self._touched = asyncio.Event()

    def touch(self) -> None:
        self._touched.set()

    async def wait(self, timeout: float) -> bool:
        """Returns True at the next change, False after `timeout` seconds without one."""
        try:
            async with asyncio.timeout(timeout):
                await self._touched.wait()
        except TimeoutError:
            return False
        self._touched.clear()
        return True


class Watches:
    """All watches of a worker."""

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
        """Touches the watches of these rows."""
        if self._watches:
            for key in rows:
                for watch in self._watches.get((table, key), ()):
                    watch.touch()

    def touch_all(self) -> None:
        """Touches all watches: partitions were revoked or restored, or the worker stops."""
        for watches in self._watches.values():
            for watch in watches:
                watch.touch()
