"""Queues of side effects by destination, and the order among them. Pure."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from runtime.side_effects.circuits import Circuit

SLOW_IN_A_ROW = 2
"""Attempts in a row that make a destination a slow one. A single one may be a matter of the letter."""


class Row(NamedTuple):
    """Whose side effect it is."""

    partition: int
    table: str
    key: str


@dataclass(eq=False, slots=True)
class Entry:
    """A side effect that is to be done, and how it has failed."""

    row: Row
    destination: str | None
    asked_at: float
    known_at: float
    failures: int = 0
    failed_at: float = 0.0
    due: float = 0.0
    """When the next attempt is due, after a failure."""
    itself: bool = False
    """Whether it failed while others like it succeeded."""
    outage: bool = False
    """Whether its last failure was one of all."""
    error: str = ""
    """The last failure, without personal data."""
    reason: str = ""
    """The same, with all that was said."""
    begun: float = 0.0
    answered: bool = False
    """Whether its attempt has ended; what is left is that this is noted."""
    slow: bool = False
    suspect: bool = False
    """Whether it had failed before this attempt, or others of its destination had."""
    queued: bool = False
    """Whether it stands in its lane."""
    timed: bool = False
    """Whether it will be looked at when its time is over."""


@dataclass(eq=False, slots=True)
class Lane:
    """What waits for one destination, or for none in particular."""

    circuit: Circuit | None
    fresh: deque[Entry] = field(default_factory=deque)
    """Never attempted, in the order they came."""
    again: deque[Entry] = field(default_factory=deque)
    """Failed, and due again."""
    running: list[Entry] = field(default_factory=list)
    slow: int = 0
    """Attempts in a row that took long."""
    in_fresh: bool = False
    in_suspect: bool = False
    look_at: float = 0.0
    """When it will be looked at again, its circuit being open."""

    @property
    def clear(self) -> bool:
        """Whether nothing is against it."""
        return self.circuit is None or (not self.circuit.open and self.slow < SLOW_IN_A_ROW)

    def may(self, now: float, places: int) -> bool:
        """Whether, with something against it, it may have one more under way."""
        if self.clear or self.circuit is None:
            return True
        if len(self.running) >= max(1, places // 2):
            return False
        latest = latest_of(self.running)
        return self.circuit.allows(now, latest) if self.circuit.open else latest is None

    def drop(self) -> None:
        """Nothing of it waits any more."""
        for entry in (*self.fresh, *self.again):
            entry.queued = False
        self.fresh.clear()
        self.again.clear()


def latest_of(running: Iterable[Entry]) -> float | None:
    """When the last of those under way began that do not take long already."""
    return max((entry.begun for entry in running if not entry.slow), default=None)
