"""Time limits of requests that wait for the broker, which all end soon when the worker stops."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runtime.common.clock import elapsed_s

PRODUCER_STOP_S = 3.0
"""Seconds that stopping a producer may take: a broker that is available answers within milliseconds."""


class SharedTimeout:
    """A timeout that many waits share, and that can be shortened for all of them at once.

    Arguments:
        seconds: the timeout of each wait.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline: float | None = None
        self._waiting: set[asyncio.Timeout] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Bounds a block. Raises `TimeoutError` when it takes longer."""
        at = elapsed_s() + self._seconds
        timeout = asyncio.timeout_at(at if self._deadline is None else min(at, self._deadline))
        self._waiting.add(timeout)
        try:
            async with timeout:
                yield
        finally:
            self._waiting.discard(timeout)

    def shorten(self, seconds: float) -> None:
        """Ends all waits, present and future ones, `seconds` from now at the latest."""
        self._deadline = elapsed_s() + seconds
        for timeout in self._waiting:
            at = timeout.when()
            if at is not None and at > self._deadline:
                timeout.reschedule(self._deadline)
