"""Fewer fetches while a worker reads nothing but the records that it has written and processed itself.

A composed worker fuses its messages and reads each of them a second time, only to skip it. A waiting fetch ends with
every commit, so at small batches there is a fetch for each: a fifth of the worker's CPU, more of the broker's.
"""

import asyncio

from runtime.common.clock import elapsed_s


class FetchPacer:
    """Delays the fetches of a consumer after many in a row that brought nothing to process.

    A record that is to be processed ends the delay, for the next fetches as well. So messages between workers, which
    arrive in turn with one's own records, are never delayed, and another record at most once by `PAUSE_S`.
    """

    PAUSE_S = 0.03
    """Seconds from the answer of a broker to the next fetch from it."""

    PATIENCE = 20
    """Fetches in a row without a record to process, before the next one is delayed."""

    def __init__(self) -> None:
        self._in_vain = 0
        self._answered: dict[int, float] = {}
        self._prompt = asyncio.Event()
        self._prompt.set()

    def polled(self, *, in_vain: bool) -> None:
        """Called with the records of a fetch.

        Arguments:
            in_vain: whether none of them is to be processed.
        """
        self._in_vain = self._in_vain + 1 if in_vain else 0
        if self._in_vain < self.PATIENCE:
            self._prompt.set()
        else:
            self._prompt.clear()

    def answered(self, node: int) -> None:
        """Called when a broker has answered a fetch.

        Arguments:
            node: id of the broker.
        """
        self._answered[node] = elapsed_s()

    async def pause(self, node: int) -> bool:
        """Waits until the next fetch from a broker is due, or fetches are no longer delayed.

        Returns whether it waited.
        """
        if self._prompt.is_set() or node not in self._answered:
            return False
        wait_s = self._answered[node] + self.PAUSE_S - elapsed_s()
        if wait_s <= 0:
            return False
        try:
            async with asyncio.timeout(wait_s):
                await self._prompt.wait()
        except TimeoutError:
            pass
        return True
