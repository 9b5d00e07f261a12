"""Ends a process whose event loop does not come round any more, or that does not come to its end: nobody else could."""

import asyncio
import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable
from time import monotonic

log = logging.getLogger(__name__)


class Pulse:
    """A thread that listens for the beat of the event loop, once it is started within one.

    Time is counted as it was seen, `STEP_S` at a time: a process that was stopped by a signal for an hour has not been
    silent for an hour. A thread that holds Python's global lock and never lets go silences this one too; then health
    checks fail, and the group gives the partitions to others.

    Arguments:
        limit_s: silence after which the process ends with code 1, having written where each thread is.
        end: called instead of ending it, by tests.
    """

    STEP_S = 0.5
    SAY_S = 2.0
    """How long saying why may take: the log itself may be what everything waits for."""

    def __init__(self, limit_s: float, end: Callable[[int], None] = os._exit) -> None:
        self._limit_s = limit_s
        self._end = end
        self._beats = 0
        self._left_s: float | None = None
        self._stopped = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begins to listen to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._beat()
        threading.Thread(target=self._listen, name="pulse", daemon=True).start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()

    def end_within(self, seconds: float) -> None:
        """Ends the process with code 1 if it has not ended by itself by then."""
        self._left_s = seconds

    def _beat(self) -> None:
        assert self._loop is not None
        self._beats += 1
        if not self._stopped.is_set():
            self._loop.call_later(self.STEP_S, self._beat)

    def _listen(self) -> None:
        heard, silent_s, before = self._beats, 0.0, monotonic()
        while not self._stopped.wait(self.STEP_S):
            now = monotonic()
            passed, before = min(now - before, 2 * self.STEP_S), now
            if self._left_s is not None:
                self._left_s -= passed
                if self._left_s <= 0:
                    self._give_up("the worker does not come to its end")
                    return
            silent_s = silent_s + passed if self._beats == heard else 0.0
            heard = self._beats
            if silent_s >= self._limit_s:
                self._give_up(f"the event loop has not come round seconds={silent_s:.0f}")
                return

    def _give_up(self, why: str) -> None:
        speaker = threading.Thread(target=self._say, args=(why,), daemon=True)
        speaker.start()
        speaker.join(self.SAY_S)
        self._end(1)

    @staticmethod
    def _say(why: str) -> None:
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        log.critical("process ended code=1 reason=%s", why)
