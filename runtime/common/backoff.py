"""Retries an operation, with exponential backoff between attempts."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Backoff:
    """A pause that doubles from `first_s` seconds up to `longest_s`, which is `first_s` if it is not given."""

    def __init__(self, first_s: float, longest_s: float | None = None) -> None:
        self._first_s = first_s
        self._longest_s = first_s if longest_s is None else longest_s
        self.next_s = first_s

    async def pause(self) -> None:
        """Returns after `next_s` seconds."""
        seconds, self.next_s = self.next_s, min(2 * self.next_s, self._longest_s)
        await asyncio.sleep(seconds)

    def reset(self) -> None:
        """Starts with the shortest pause again, after a success."""
        self.next_s = self._first_s


async def retry(
    operation: Callable[[], Awaitable[T]],
    backoff: Backoff,
    *,
    passes: Callable[[Exception], bool] = lambda _: True,
    report: Callable[[Exception], None] = lambda _: None,
) -> T:
    """Repeats an operation until it succeeds, and returns its result.

    Arguments:
        operation: called again after each error that passes.
        backoff: the pauses; `backoff.next_s` is the next one.
        passes: whether a retry may mend an error; any other error is raised.
        report: called with each error before the pause: logs it.
    """
    while True:
        try:
            return await operation()
        except Exception as error:
            if not passes(error):
                raise
            report(error)
        await backoff.pause()
