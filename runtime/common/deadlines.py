"""Time limits of requests that wait for the broker; shortened for all of them when the worker stops."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtime.common.clock import elapsed_s

END_S = 3.0
"""Seconds, the time limit for ending a producer that failed: a broker that is there answers within milliseconds."""


class WaitLimit:
    """A time limit for each of many waits, which can be shortened for all of them.

    Arguments:
        seconds: the limit of each wait.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None
        self._waiting: set[asyncio.Timeout] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Bounds a block. Raises `TimeoutError` at the limit."""
        at = elapsed_s() + self._seconds
        timeout = asyncio.timeout_at(at if self._until is None else min(at, self._until))
        self._waiting.add(timeout)
        try:
            async with timeout:
                yield
        finally:
            self._waiting.discard(timeout)

    def hurry(self, seconds: float) -> None:
        """Shortens all waits, present and future, to end `seconds` from now at the latest."""
        self._until = elapsed_s() + seconds
        for timeout in self._waiting:
            at = timeout.when()
            if at is not None and at > self._until:
                timeout.reschedule(self._until)
