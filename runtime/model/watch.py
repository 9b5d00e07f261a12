"""Watches: HTTP handlers wait for changes of rows."""

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from runtime.model.service import Table


class Watch:
    """A watch on one row, for the time of a `with` block. A change between two calls of `wait` is not lost.

    Arguments:
        watches: all watches of the worker.
        row: table and key.
        touched: called at each change, in place of `wait`.
    """

    __slots__ = ("_event", "_row", "_touched", "_watches")

    def __init__(self, watches: "Watches", row: tuple[str, bytes], touched: Callable[[], object] | None = None) -> None:
        self._watches = watches
        self._row = row
        self._event: asyncio.Event | None = None
        self._touched = touched

    def __enter__(self) -> Self:
        if self._touched is None:
            self._event = asyncio.Event()
            self._touched = self._event.set
        self._watches.add(self._row, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the watch."""
        self._watches.remove(self._row, self)

    def touch(self) -> None:
        if self._touched is not None:
            self._touched()

    async def wait(self, timeout: float) -> bool:
        """Returns True at the next change, False after `timeout` seconds without one."""
        if self._event is None:
            raise RuntimeError("a watch with a callback cannot be waited for")
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Watches:
    """All watches of a worker."""

    def __init__(self) -> None:
        self._watches: dict[tuple[str, bytes], set[Watch]] = {}

    def __len__(self) -> int:
        return sum(len(watches) for watches in self._watches.values())

    def watch(self, table: Table[Any], key: str, touched: Callable[[], object] | None = None) -> Watch:
        """A watch on the row of `key`; begins with a `with` block. See `Watch`."""
        return Watch(self, (table.name, key.encode()), touched)

    def add(self, row: tuple[str, bytes], watch: Watch) -> None:
        self._watches.setdefault(row, set()).add(watch)

    def remove(self, row: tuple[str, bytes], watch: Watch) -> None:
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
