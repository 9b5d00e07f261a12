"""Waiting for what must come: requests that may be repeated, states that are to be reached, an end to it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka.errors import KafkaError

from ecosystem.clients.api import RequestRejected, Unreachable
from ecosystem.loadgen.tally import Tally

T = TypeVar("T")

_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0


class Mismatch(Exception):
    """What was read is not what was written, or did not come."""


class Stopped(Exception):
    """The end was asked for while something was still to come."""


class RetryDeadline:
    """How long to wait, and when to give it up: as soon as `stop` is set.

    `seconds`: for one request in all, repeated while workers restart or partitions move; for one state to be reached.
    """

    def __init__(self, tally: Tally, stop: asyncio.Event, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self._tally = tally
        self._stop = stop

    async def rest(self, seconds: float) -> None:
        """Raises `Stopped`, at once or meanwhile."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._stop.wait()
        except TimeoutError:
            return
        raise Stopped

    async def request(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Repeats what may be repeated: a worker that is gone or not ready, an outcome that is not there yet."""
        deadline = time.monotonic() + self.seconds
        while True:
            try:
                return await call()
            except RequestRejected as refusal:
                if refusal.status not in {502, 503, 504} or time.monotonic() > deadline:
                    raise Mismatch(f"{what}: {refusal}") from refusal
            except (Unreachable, KafkaError) as error:
                if time.monotonic() > deadline:
                    raise Mismatch(f"{what}: nobody answered ({error})") from error
            self._tally.repeated += 1
            await self.rest(_PAUSE_S)

    async def until(
        self,
        what: str,
        look: Callable[[], Awaitable[T]],
        enough: Callable[[T], bool],
        longer_s: float = 0,
    ) -> T:
        """Looks again and again, less and less often; raises `Mismatch` with what it saw last if it takes too long.

        What is not found (404) is not there yet. `longer_s`: how much longer than anything else it may take.
        """
        seconds = self.seconds + longer_s
        deadline, pause = time.monotonic() + seconds, _PAUSE_S / 2
        while True:
            found: T | str
            try:
                found = await self.request(what, look)
                if enough(found):
                    return found
            except Mismatch as mismatch:
                if not refused_with(mismatch, 404):
                    raise
                found = str(mismatch)
            if time.monotonic() > deadline:
                raise Mismatch(f"{what}: not within {seconds:g} s, is {found!r}")
            await self.rest(pause)
            pause = min(pause * 1.6, _LONGEST_PAUSE_S)


def refused_with(mismatch: Mismatch, status: int) -> bool:
    """Whether it is the service's own answer, and which."""
    return isinstance(mismatch.__cause__, RequestRejected) and mismatch.__cause__.status == status
