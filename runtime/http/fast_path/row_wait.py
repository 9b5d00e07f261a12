"""Waits for a row, by callbacks."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from runtime.errors import KeyNotOwned
from runtime.hosting import Host
from runtime.model.service import Table
from runtime.model.watch import Watch


class RowWait:
    """Waits until a row of this worker is ready, or for a time. Nothing is called after `close`.

    Arguments:
        host: this worker.
        table: of the row.
        key: of the row.
        ready: whether a row is what is waited for.
        until: end of the wait, by `time.monotonic`.
        ended: called with the row, ready or not, or with `None`; at once, where there is nothing to wait for.
        lost: called if this worker cannot go on: the key is not its own any more, or it stops.
        failed: called with an unexpected error, of `ended` and `lost` as well.
    """

    __slots__ = (
        "_closed",
        "_ended",
        "_failed",
        "_host",
        "_key",
        "_lost",
        "_ready",
        "_scheduled",
        "_table",
        "_timer",
        "_until",
        "_watch",
    )

    def __init__(
        self,
        host: Host,
        table: Table[Any],
        key: str,
        *,
        ready: Callable[[Any], bool],
        until: float,
        ended: Callable[[Any], None],
        lost: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._host = host
        self._table = table
        self._key = key
        self._ready = ready
        self._until = until
        self._ended = ended
        self._lost = lost
        self._failed = failed
        self._watch: Watch | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._scheduled = self._closed = False

    def begin(self) -> None:
        """Looks at the row, and waits if it is not ready."""
        try:
            self._look()
        except Exception as error:
            self._failed(error)

    def close(self) -> None:
        """Stops waiting."""
        self._closed = True
        if self._watch is not None and self._timer is not None:
            self._watch.close()
            self._timer.cancel()
            self._watch = self._timer = None

    def _look(self) -> None:
        remaining = self._until - time.monotonic()
        try:
            row = self._host.read(self._table, self._key)
        except KeyNotOwned:
            self._lost()
            return
        if remaining <= 0 or (row is not None and self._ready(row)):
            self._ended(row)
        elif self._host.stopping:
            self._lost()
        elif self._watch is None:
            self._watch = self._host.watch(self._table, self._key, self._touched).__enter__()
            self._timer = asyncio.get_running_loop().call_later(remaining, self._time_out)
            self._look()  # watch first, then read: no change in between is missed

    def _touched(self) -> None:
        # Later: the row is not in the store before its batch is applied as a whole.
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._look_again)

    def _look_again(self) -> None:
        self._scheduled = False
        if not self._closed:
            self.begin()

    def _time_out(self) -> None:
        self._until = 0.0  # the clock of the timer may be ahead by a little
        self._look_again()
