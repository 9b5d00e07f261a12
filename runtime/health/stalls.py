"""Detects missing progress of a worker from periodic samples. Pure."""

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from runtime.model.records import Offsets, TopicPartition

TOLERANCE = 10
"""Factor on the limit for a component that is held up by others: by another partition's records that are processed
first, or by a broker that fails requests."""

_POLLER, _REBALANCE = "poller", "rebalance"


class Sample(NamedTuple):
    """The state of a worker at one moment.

    A partition whose leader does not answer is missing in `ends`: its broker is unavailable, the worker is not stalled.
    """

    elapsed_s: float
    """Seconds since the previous sample."""
    reachable: bool
    """Whether the coordinator of the group answers."""
    iterations: int
    """Iterations of the poller so far."""
    running: bool
    """Whether the assigned partitions are restored."""
    rebalance: Hashable
    """Changes whenever a rebalance makes progress."""
    failures: int
    """Commits and rebalances that the broker has failed so far."""
    positions: Offsets
    """Next offset to process of each owned partition."""
    ends: Offsets
    """Last stable offset of each partition. An open transaction is not counted as lag."""
    queued: Collection[TopicPartition] = ()
    """Partitions with fetched records that were not polled yet."""


class Stall(NamedTuple):
    """A component that makes no progress, and for how long that was observed."""

    component: str
    seconds: float
    expired: bool
    """Whether it exceeds the limit, after which the worker ends."""
    partition: TopicPartition | None = None
    position: int | None = None
    end: int | None = None

    def __str__(self) -> str:
        place = ""
        if self.partition is not None:
            topic, number = self.partition
            place = f" topic={topic} partition={number} position={self.position} end={self.end}"
        return f"component={self.component}{place} seconds={self.seconds:.0f}"


@dataclass(slots=True)
class _Clock:
    """For how long a component has had work and made no progress."""

    progress: Hashable
    failures: int
    total: int
    """Sum of all positions: it shows whether other partitions make progress."""
    seconds: float = 0.0
    failed: bool = False


@dataclass
class StallDetector:
    """Judges samples, one after the other.

    Only observed time counts, at most `max_sample_s` a sample: a process that was stopped by a signal for an hour, or
    a machine that slept, was not stalled for an hour.

    Arguments:
        limit_s: seconds without progress, although there is work, after which a stall expires. It is reported from
            half of that on.
        max_sample_s: seconds between two samples that count at most.
    """

    limit_s: float
    max_sample_s: float
    _clocks: dict[Hashable, _Clock] = field(default_factory=dict)

    def observe(self, sample: Sample) -> list[Stall]:
        """The stalls that last longer than half the limit, expired ones first."""
        elapsed_s = min(sample.elapsed_s, self.max_sample_s)
        if not sample.reachable:
            self._clocks.clear()
            return []
        found = [self._advance(_POLLER, sample.iterations, sample, elapsed_s)]
        if sample.running:
            self._clocks.pop(_REBALANCE, None)
            behind = {tp: at for tp, at in sample.positions.items() if tp in sample.ends and at < sample.ends[tp]}
            for subject in self._clocks.keys() - behind.keys() - {_POLLER}:
                del self._clocks[subject]
            found += [self._advance(tp, at, sample, elapsed_s) for tp, at in behind.items()]
        else:
            # The clocks of partitions are kept: one at the same position after each rebalance has made no progress.
            found.append(self._advance(_REBALANCE, sample.rebalance, sample, elapsed_s))
        return sorted(
            (stall for stall in found if stall is not None), key=lambda stall: (not stall.expired, -stall.seconds)
        )

    def _advance(self, subject: Hashable, progress: Hashable, sample: Sample, elapsed_s: float) -> Stall | None:
        clock, total = self._clocks.get(subject), sum(sample.positions.values())
        if clock is None or clock.progress != progress:
            self._clocks[subject] = _Clock(progress, sample.failures, total)
            return None
        clock.seconds += elapsed_s
        partition = subject if isinstance(subject, TopicPartition) else None
        clock.failed |= subject != _POLLER and sample.failures != clock.failures
        behind_others = partition in sample.queued and total != clock.total
        limit_s = self.limit_s * (TOLERANCE if clock.failed or behind_others else 1)
        if clock.seconds < limit_s / 2:
            return None
        expired = clock.seconds >= limit_s
        if partition is None:
            return Stall(str(subject), clock.seconds, expired)
        return Stall(
            "partition", clock.seconds, expired, partition, sample.positions[partition], sample.ends[partition]
        )
