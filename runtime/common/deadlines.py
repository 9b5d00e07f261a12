"""How long requests wait for the broker: as long as is set, and no longer than the worker has once it stops."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtime.common.clock import elapsed_s

END_S = 3.0
"""Seconds, the time limit for ending a producer that failed: a broker that is there answers within milliseconds."""


class WaitLimit:
    """A time limit for each of many, which may be cut short for all of them.

    Arguments:
        seconds: that each may wait.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None
        self._waiting: set[asyncio.Timeout] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Raises `TimeoutError` when the time is over."""
        at = elapsed_s() + self._seconds
        timeout = asyncio.timeout_at(at if self._until is None else min(at, self._until))
        self._waiting.add(timeout)
        try:
            async with timeout:
                yield
        finally:
            self._waiting.discard(timeout)

    def hurry(self, seconds: float) -> None:
        """From now on nobody waits for longer than `seconds` from now."""
        self._until = elapsed_s() + seconds
        for timeout in self._waiting:
            at = timeout.when()
            if at is not None and at > self._until:
                timeout.reschedule(self._until)
