"""Time limits of requests that wait for the broker, which all end soon when the worker stops."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from runtime.common.clock import elapsed_s

PRODUCER_STOP_S = 3.0
"""Seconds that stopping a producer may take: a broker that is available answers within milliseconds."""


class _Bound(NamedTuple):
    at: float
    timer: asyncio.TimerHandle
    error: Callable[[], Exception]


class SharedTimeout:
    """A timeout that many waits share, and that can be shortened for all of them at once.

    Arguments:
        seconds: the timeout of each wait.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline: float | None = None
        self._waiting: set[asyncio.Timeout] = set()
        self._bounds: dict[asyncio.Future[Any], _Bound] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._bounds)

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Bounds a block. Raises `TimeoutError` when it takes longer."""
        timeout = asyncio.timeout_at(self._end())
        self._waiting.add(timeout)
        try:
            async with timeout:
                yield
        finally:
            self._waiting.discard(timeout)

    def bound(self, future: asyncio.Future[Any], error: Callable[[], Exception]) -> None:
        """Bounds a future: it fails with an `error` when it takes longer."""
        self._bound(future, self._end(), error)
        future.add_done_callback(self._done)

    def _bound(self, future: asyncio.Future[Any], at: float, error: Callable[[], Exception]) -> None:
        timer = asyncio.get_running_loop().call_at(at, _fail, future, error)
        self._bounds[future] = _Bound(at, timer, error)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._bounds.pop(future).timer.cancel()

    def _end(self) -> float:
        at = elapsed_s() + self._seconds
        return at if self._deadline is None else min(at, self._deadline)

    def shorten(self, seconds: float) -> None:
        """Ends all waits, present and future ones, `seconds` from now at the latest."""
        self._deadline = elapsed_s() + seconds
        for timeout in self._waiting:
            at = timeout.when()
            if at is not None and at > self._deadline:
                timeout.reschedule(self._deadline)
        for future, bound in list(self._bounds.items()):
            if bound.at > self._deadline:
                bound.timer.cancel()
                self._bound(future, self._deadline, bound.error)


def _fail(future: asyncio.Future[Any], error: Callable[[], Exception]) -> None:
    if not future.done():
        future.set_exception(error())
