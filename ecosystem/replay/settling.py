"""Waits until the services of a cluster have processed everything."""

import asyncio
import time
from collections.abc import Callable, Sequence

from ecosystem.clients.backlog.unprocessed import UnprocessedReader

_EVERY_S = 0.05
PATIENCE_S = 300.0
"""Seconds without any progress after which the services count as stopped."""


class NotSettled(Exception):
    """The services do not process what they have. The text says which, and the remedy."""


class Settling:
    """Waits for services.

    Arguments:
        backlog: reads what they have not processed.
        stopped: whether to wait no longer.
        waiting: called with the services that are behind, with each look.
    """

    def __init__(
        self, backlog: UnprocessedReader, stopped: Callable[[], bool], waiting: Callable[[Sequence[str]], None]
    ) -> None:
        self._backlog = backlog
        self._stopped = stopped
        self._waiting = waiting

    async def wait(self) -> bool:
        """Returns true once nothing is unprocessed, false if stopped before. Raises `NotSettled`."""
        last, since = None, time.monotonic()
        while not self._stopped():
            behind = await self._backlog.read()
            if not behind.positions and not behind.open:
                return True
            if behind != last:
                last, since = behind, time.monotonic()
            elif time.monotonic() - since > PATIENCE_S:
                raise NotSettled(
                    f"{', '.join(behind.services) or 'an open transaction'} has made no progress for {PATIENCE_S:g} s: "
                    "see `orders backlog`, start its workers, and go on with --resume"
                )
            self._waiting(behind.services)
            await asyncio.sleep(_EVERY_S)
        return False
