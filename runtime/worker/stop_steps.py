"""Stop steps of a worker: run in reverse order of the start, each within a time limit."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

CLOSE_S = 0.5
"""Seconds, the default time limit of a step: a whole stop takes less than 10 s, also without a broker."""


class StopSteps:
    """Steps added while a worker starts. A stop runs those that were added, also after a failed start."""

    def __init__(self) -> None:
        self._steps: list[tuple[float, Callable[[], Awaitable[None]]]] = []

    def add(self, step: Callable[[], Awaitable[None]], limit_s: float = CLOSE_S) -> None:
        """Adds a step with a time limit in seconds."""
        self._steps.append((limit_s, step))

    def call(self, release: Callable[[], object]) -> None:
        """Adds a step without waiting."""

        async def step() -> None:
            release()

        self.add(step)

    async def run(self) -> None:
        """Runs all steps, last one first. Continues after a step that fails or times out."""
        while self._steps:
            limit_s, step = self._steps.pop()
            try:
                async with asyncio.timeout(limit_s):
                    await step()
            except TimeoutError:
                log.warning("stop step timed out step=%s", step.__qualname__)
            except Exception:  # the other steps still have to run
                log.exception("stop step failed step=%s", step.__qualname__)
