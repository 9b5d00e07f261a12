"""Retries requests and polls for states, within a time limit and until the load generator is stopped."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka.errors import KafkaError

from ecosystem.clients.api import RequestRejected, Unreachable
from ecosystem.loadgen.tally import Tally

T = TypeVar("T")

_PAUSE_S = 0.2
_MAX_PAUSE_S = 2.0


class Mismatch(Exception):
    """An answer is not as expected, or did not come in time."""


class Stopped(Exception):
    """The load generator was stopped while a result was awaited."""


class RetryPolicy:
    """Time limit of requests and awaited states.

    Arguments:
        tally: counts repeated requests.
        stop: ends every wait as soon as it is set.
        timeout_s: time limit in seconds of one request with its repetitions, and of one state to be reached.
    """

    def __init__(self, tally: Tally, stop: asyncio.Event, timeout_s: float = 60.0) -> None:
        self.timeout_s = timeout_s
        self._tally = tally
        self._stop = stop

    async def pause(self, seconds: float) -> None:
        """Waits. Raises `Stopped` as soon as `stop` is set."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._stop.wait()
        except TimeoutError:
            return
        raise Stopped

    async def request(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Repeats a request while worker or outcome are unavailable. Raises `Mismatch` after the time limit."""
        deadline = time.monotonic() + self.timeout_s
        while True:
            try:
                return await call()
            except RequestRejected as error:
                if error.status not in {502, 503, 504} or time.monotonic() > deadline:
                    raise Mismatch(f"{what}: {error}") from error
            except (Unreachable, KafkaError) as error:
                if time.monotonic() > deadline:
                    raise Mismatch(f"{what}: nobody answered ({error})") from error
            self._tally.repeated += 1
            await self.pause(_PAUSE_S)

    async def poll(
        self,
        what: str,
        read: Callable[[], Awaitable[T]],
        complete: Callable[[T], bool],
        extra_s: float = 0,
    ) -> T:
        """Repeats `read`, with growing pauses, until its result is `complete`. 404 counts as not complete.

        Raises `Mismatch` with the last result after the time limit, which is `extra_s` longer.
        """
        timeout_s = self.timeout_s + extra_s
        deadline, pause = time.monotonic() + timeout_s, _PAUSE_S / 2
        while True:
            found: T | str
            try:
                found = await self.request(what, read)
                if complete(found):
                    return found
            except Mismatch as mismatch:
                if not rejected_with(mismatch, 404):
                    raise
                found = str(mismatch)
            if time.monotonic() > deadline:
                raise Mismatch(f"{what}: not within {timeout_s:g} s, is {found!r}")
            await self.pause(pause)
            pause = min(pause * 1.6, _MAX_PAUSE_S)


def rejected_with(mismatch: Mismatch, status: int) -> bool:
    """Whether the mismatch is an answer of the service with this status."""
    return isinstance(mismatch.__cause__, RequestRejected) and mismatch.__cause__.status == status
