"""Keeps a rate of records."""

import asyncio
import time
from collections.abc import Awaitable, Callable

MOST_OF_BATCH = 500
"""Records of a batch: what is repeated at most if nothing can tell whether it was sent."""
_BATCHES_PER_S = 2.0


class Pace:
    """Delays batches so that no more than a rate of records is sent.

    Arguments:
        rate: records per second; `None`: as fast as they are acknowledged.
        clock: seconds, monotonic.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        rate: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._next = clock()

    @property
    def batch(self) -> int:
        """Records of a batch. A slow rate has small ones, so that it is even."""
        return MOST_OF_BATCH if self._rate is None else max(1, min(MOST_OF_BATCH, int(self._rate / _BATCHES_PER_S)))

    async def wait(self, records: int) -> None:
        """Waits until a batch may be sent. A pause is not made up for by sending faster."""
        if self._rate is None:
            return
        now = self._clock()
        if self._next > now:
            await self._sleep(self._next - now)
        self._next = max(self._next, now) + records / self._rate
