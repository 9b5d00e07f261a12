"""What a worker stops at its end: the steps in reverse order of the start, each within a time limit."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

CLOSE_S = 0.5
"""Seconds, the time limit of a step that has none of its own: all of a stop takes less than 10 s, broker or not."""


class StopSteps:
    """Steps that are added while a worker starts, and run in reverse when it stops, however far the start came."""

    def __init__(self) -> None:
        self._steps: list[tuple[float, Callable[[], Awaitable[None]]]] = []

    def add(self, step: Callable[[], Awaitable[None]], limit_s: float = CLOSE_S) -> None:
        """Adds a step that takes `limit_s` seconds at most."""
        self._steps.append((limit_s, step))

    def call(self, release: Callable[[], object]) -> None:
        """Adds a step that does not wait for anything."""

        async def step() -> None:
            release()

        self.add(step)

    async def run(self) -> None:
        """Runs all steps, the last one first. A step that fails or takes too long does not keep others from running."""
        while self._steps:
            limit_s, step = self._steps.pop()
            try:
                async with asyncio.timeout(limit_s):
                    await step()
            except TimeoutError:
                log.warning("stop step timed out step=%s", step.__qualname__)
            except Exception:  # the other steps have to run all the same
                log.exception("stop step failed step=%s", step.__qualname__)
