"""Queues of side effects by destination, and the order within each. Pure."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from runtime.side_effects.circuits import Circuit

SLOW_IN_A_ROW = 2
"""Slow attempts in a row that make a destination slow. One may be due to its payload."""


class RowId(NamedTuple):
    """Identifies the row of a side effect."""

    partition: int
    table: str
    key: str


@dataclass(eq=False, slots=True)
class Entry:
    """A side effect in the scheduler, with its failures. Times are seconds of the monotonic clock."""

    row: RowId
    destination: str | None
    enqueued_at: float
    added_at: float
    """When it was loaded here."""
    failures: int = 0
    failed_at: float = 0.0
    retry_at: float = 0.0
    """When the next attempt is due, after a failure."""
    isolated: bool = False
    """Whether it failed while others to its destination succeeded."""
    outage: bool = False
    """Whether its last failure was an `Outage`."""
    error: str = ""
    """The last failure, without personal data."""
    reason: str = ""
    """The last failure, complete."""
    started_at: float = 0.0
    answered: bool = False
    """Whether its attempt has ended, and only the acknowledgement is outstanding."""
    slow: bool = False
    suspect: bool = False
    """Whether this attempt follows a failure of its own or of its destination."""
    in_lane: bool = False
    timeout_scheduled: bool = False


@dataclass(eq=False, slots=True)
class Lane:
    """The queue of one destination, or of all side effects without one."""

    circuit: Circuit | None
    limit: int | None = None
    """Attempts that may run at a time; `None` for no limit."""
    fresh: deque[Entry] = field(default_factory=deque)
    """Never attempted, first in, first out."""
    retries: deque[Entry] = field(default_factory=deque)
    """Failed, and due for another attempt."""
    running: list[Entry] = field(default_factory=list)
    slow_in_a_row: int = 0
    in_fresh: bool = False
    """Whether the scheduler has it queued among the lanes with fresh entries."""
    in_suspect: bool = False
    """Whether the scheduler has it queued among the lanes that have failed."""
    check_at: float = 0.0
    """When its open circuit is checked next."""

    @property
    def full(self) -> bool:
        """Whether as many attempts run as may at a time."""
        return self.limit is not None and len(self.running) >= self.limit

    @property
    def healthy(self) -> bool:
        """Whether its destination neither fails nor is slow."""
        return self.circuit is None or (not self.circuit.open and self.slow_in_a_row < SLOW_IN_A_ROW)

    def admits(self, now: float, slots: int) -> bool:
        """Whether one more attempt may start: one at a time, and half of the `slots` at most, unless it is healthy."""
        if self.full:
            return False
        if self.healthy or self.circuit is None:
            return True
        if len(self.running) >= max(1, slots // 2):
            return False
        latest = latest_start(self.running)
        return self.circuit.allows(now, latest) if self.circuit.open else latest is None

    def clear(self) -> None:
        """Removes all entries that wait."""
        for entry in (*self.fresh, *self.retries):
            entry.in_lane = False
        self.fresh.clear()
        self.retries.clear()


def latest_start(running: Iterable[Entry]) -> float | None:
    """When the latest attempt started of those that are not slow; `None` if there is none."""
    return max((entry.started_at for entry in running if not entry.slow), default=None)
