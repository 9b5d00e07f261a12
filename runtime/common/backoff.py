"""Exponential backoff between attempts."""

import asyncio


class Backoff:
    """A pause that doubles from `first_s` seconds up to `longest_s`."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self.next_s = first_s

    async def pause(self) -> None:
        """Returns after `next_s` seconds."""
        seconds, self.next_s = self.next_s, min(2 * self.next_s, self._longest_s)
        await asyncio.sleep(seconds)

    def reset(self) -> None:
        """Starts with the shortest pause again, after a success."""
        self.next_s = self._first_s
