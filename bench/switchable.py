"""Runs commands of `orders` in a process whose metrics are switched off and on by signals, for `bench.board_cost`.

SIGUSR1 replaces the code that counts and observes by functions that do nothing, SIGUSR2 puts it back: the same process
is measured with and without metrics, with the same caches, partitions and memory. What remains when they are off are
the readings of the clock, and the age of the backlog that the watchdog computes once a second. A feed ends with its
last viewer, not a minute later.

The first SIGHUP begins to attribute CPU time to the board and to metrics (`bench.attribution`). Each later one writes
the time since the one before into the file that the environment variable `BENCH_ATTRIBUTION` names.

    python -m bench.switchable run orders fraud inventory details board
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import runtime.http.fast_path.connection
import runtime.http.metrics
from bench.attribution import Attribution
from ecosystem.cli.main import main
from runtime.loop.overlay import ProcessorContext
from runtime.metrics.commits import CommitMetrics
from runtime.metrics.loop import LoopMetrics
from runtime.metrics.side_effects import SideEffectMetrics
from runtime.observation.feed import Feed

OFF, ON, ATTRIBUTE = signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP
FILE = "BENCH_ATTRIBUTION"
"""Environment variable: path of the file for the attributed CPU time."""

WRITERS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (runtime.http.metrics, ("observe",)),
    (runtime.http.fast_path.connection, ("observe",)),
    (LoopMetrics, ("batch", "lag", "stalled", "owned", "standby", "followed")),
    (CommitMetrics, ("took", "requested", "wrote")),
    (SideEffectMetrics, ("ended", "failed")),
    (ProcessorContext, ("observe", "count")),
)
"""Where metrics are written while orders are processed: module or class, and the names of its functions."""


class Metrics:
    """Switches the metrics of this process."""

    def __init__(self) -> None:
        self._real = [(owner, name, vars(owner)[name]) for owner, names in WRITERS for name in names]

    def off(self, *_: object) -> None:
        """Stops counting."""
        for owner, name, _real in self._real:
            setattr(owner, name, _nothing)

    def on(self, *_: object) -> None:
        """Counts again."""
        for owner, name, real in self._real:
            setattr(owner, name, real)

    def attribute(self, found: Attribution) -> None:
        """Counts, and measures the time that it takes."""
        for owner, name, real in self._real:
            setattr(owner, name, found.counting(real))


class Attributing:
    """Attributes CPU time of this process, begun and read by a signal."""

    def __init__(self, metrics: Metrics, file: Path) -> None:
        self._metrics = metrics
        self._file = file
        self._found = Attribution()
        self._on = False

    def next(self, *_: object) -> None:
        """Begins to attribute. Called again, writes the attributed time and counts from zero."""
        if self._on:
            self._found.write(self._file)
        else:
            self._on = True
            self._found.watch_board()
            asyncio.get_running_loop().set_task_factory(self._found.new_task)
            self._metrics.attribute(self._found)
        self._found.restart()


def _nothing(*_: object, **__: object) -> None:
    """Stands for a function that counts."""


if __name__ == "__main__":
    Feed.IDLE_S = 0.0
    switch = Metrics()
    signal.signal(OFF, switch.off)
    signal.signal(ON, switch.on)
    if FILE in os.environ:
        signal.signal(ATTRIBUTE, Attributing(switch, Path(os.environ[FILE])).next)
    sys.argv[0] = "orders"
    main()
