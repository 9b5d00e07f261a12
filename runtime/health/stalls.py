"""Whether a worker gets on: what it saw of itself and of the broker over time, and what that comes to. Pure."""

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from runtime.model.records import Offsets, TopicPartition

PATIENCE = 10
"""How many times longer a thing may stand still that has an excuse: another partition's turn, or a broker that fails
what it is asked."""

_READER, _TAKEOVER = "reader", "takeover"


class Sample(NamedTuple):
    """A worker at one moment.

    A partition whose end could not be asked is missing in `ends`: its broker is away, and nobody is to blame here.
    """

    elapsed_s: float
    """Since the glance before."""
    reachable: bool
    """Whether the coordinator of the group answers."""
    turns: int
    """Times the reader has come round."""
    running: bool
    """Whether what the group gave is taken over."""
    takeover: Hashable
    """Changes whenever a takeover gets on."""
    failures: int
    """Commits and takeovers that the broker has failed so far."""
    positions: Offsets
    """Next offset to decide of each partition owned."""
    ends: Offsets
    """Where each ends for who reads what is committed: a transaction left open is not waited behind."""
    queued: Collection[TopicPartition] = ()
    """Partitions of which something is here and waits for its turn."""


class Stall(NamedTuple):
    """What does not get on, and for how long it has been seen not to."""

    what: str
    seconds: float
    over: bool
    """Whether that is longer than a worker may go on like this."""
    partition: TopicPartition | None = None
    position: int | None = None
    end: int | None = None

    def __str__(self) -> str:
        if self.partition is None:
            return f"{self.what} stands still seconds={self.seconds:.0f}"
        topic, number = self.partition
        return (
            f"partition stands still topic={topic} partition={number} position={self.position} end={self.end} "
            f"seconds={self.seconds:.0f}"
        )


@dataclass(slots=True)
class _Clock:
    """For how long something has waited without getting on."""

    mark: Hashable
    failures: int
    total: int
    """All positions together: whether others get on."""
    seconds: float = 0.0
    failed: bool = False


@dataclass
class Stalls:
    """Judges glances, one after the other.

    Time is counted as it was seen, a glance at most `most_s`: a process that was stopped for an hour, or a machine that
    slept, has not stood still for an hour.

    Arguments:
        limit_s: how long something may stand still although there is something to do. Half of that is worth telling.
        most_s: the most that the time between two glances counts.
    """

    limit_s: float
    most_s: float
    _clocks: dict[Hashable, _Clock] = field(default_factory=dict)

    def look(self, glance: Sample) -> list[Stall]:
        """What stands still for longer than half the limit, what is over first."""
        elapsed = min(glance.elapsed_s, self.most_s)
        if not glance.reachable:
            self._clocks.clear()
            return []
        found = [self._run(_READER, glance.turns, glance, elapsed)]
        if glance.running:
            self._clocks.pop(_TAKEOVER, None)
            behind = {tp: at for tp, at in glance.positions.items() if tp in glance.ends and at < glance.ends[tp]}
            for gone in self._clocks.keys() - behind.keys() - {_READER}:
                del self._clocks[gone]
            found += [self._run(tp, at, glance, elapsed) for tp, at in behind.items()]
        else:
            # The clocks of partitions wait: one that stands where it stood, time and again, has not got on.
            found.append(self._run(_TAKEOVER, glance.takeover, glance, elapsed))
        return sorted(
            (stall for stall in found if stall is not None), key=lambda stall: (not stall.over, -stall.seconds)
        )

    def _run(self, subject: Hashable, mark: Hashable, glance: Sample, elapsed: float) -> Stall | None:
        clock, total = self._clocks.get(subject), sum(glance.positions.values())
        if clock is None or clock.mark != mark:
            self._clocks[subject] = _Clock(mark, glance.failures, total)
            return None
        clock.seconds += elapsed
        partition = subject if isinstance(subject, TopicPartition) else None
        clock.failed |= subject != _READER and glance.failures != clock.failures
        waits_its_turn = partition in glance.queued and total != clock.total
        limit = self.limit_s * (PATIENCE if clock.failed or waits_its_turn else 1)
        if clock.seconds < limit / 2:
            return None
        over = clock.seconds >= limit
        if partition is None:
            return Stall(str(subject), clock.seconds, over)
        return Stall("partition", clock.seconds, over, partition, glance.positions[partition], glance.ends[partition])
