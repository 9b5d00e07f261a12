"""Kills the process if its event loop is blocked or its shutdown hangs."""

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
    """A thread that expects a heartbeat from the event loop.

    Only observed time counts, `STEP_S` at a time: a process that was stopped by a signal for an hour was not blocked
    for an hour. A thread that never releases Python's global lock blocks this one, too; then health checks fail, and
    the group revokes the worker's partitions.

    Arguments:
        limit_s: seconds without a heartbeat after which the process exits with code 1 and dumps all stacks.
        exit_process: replaced by tests.
    """

    STEP_S = 0.5
    """Seconds between two heartbeats."""
    REPORT_S = 2.0
    """Seconds for the log line and the stacks at most: the process may be blocked by its own log."""

    def __init__(self, limit_s: float, exit_process: Callable[[int], None] = os._exit) -> None:
        self._limit_s = limit_s
        self._exit_process = exit_process
        self._beats = 0
        self._shutdown_left_s: float | None = None
        self._stopped = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Starts to watch the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._beat()
        threading.Thread(target=self._watch, name="pulse", daemon=True).start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()

    def end_within(self, seconds: float) -> None:
        """Kills the process with code 1 unless it has ended within `seconds`."""
        self._shutdown_left_s = seconds

    def _beat(self) -> None:
        assert self._loop is not None
        self._beats += 1
        if not self._stopped.is_set():
            self._loop.call_later(self.STEP_S, self._beat)

    def _watch(self) -> None:
        last_beats, blocked_s, before = self._beats, 0.0, monotonic()
        while not self._stopped.wait(self.STEP_S):
            now = monotonic()
            passed_s, before = min(now - before, 2 * self.STEP_S), now
            if self._shutdown_left_s is not None:
                self._shutdown_left_s -= passed_s
                if self._shutdown_left_s <= 0:
                    self._kill("the shutdown hangs")
                    return
            blocked_s = blocked_s + passed_s if self._beats == last_beats else 0.0
            last_beats = self._beats
            if blocked_s >= self._limit_s:
                self._kill(f"the event loop is blocked seconds={blocked_s:.0f}")
                return

    def _kill(self, reason: str) -> None:
        reporter = threading.Thread(target=self._report, args=(reason,), daemon=True)
        reporter.start()
        reporter.join(self.REPORT_S)
        self._exit_process(1)

    @staticmethod
    def _report(reason: str) -> None:
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        log.critical("process ended code=1 reason=%s", reason)
