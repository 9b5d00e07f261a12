"""Rates of stages and times between them, over the last two minutes. Pure, and bounded in memory."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SECONDS = 120
"""Seconds that are kept, and shown in charts."""
_RATE_S = 10
"""Seconds over which a rate is averaged: orders come in bursts."""
_LATE_S = 2
"""Newest seconds that no rate includes: their records are still on the way."""
_TIMES_S = 60
"""Seconds whose times make the percentiles."""
_AHEAD_S = 5
"""Seconds by which the clock of a writer may be ahead."""
_STEPS = 8
"""Buckets of times for each factor of e: a percentile is exact to 6 %."""


@dataclass(slots=True)
class _Second:
    counts: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    times: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))


class Flow:
    """Counts records by the second in which they were written.

    >>> flow = Flow()
    >>> for second in range(100, 130):
    ...     flow.count("CREATED", second * 1000, 0.5)  # half of the partitions are read
    >>> flow.rates(131_000)["CREATED"]
    2.0
    """

    def __init__(self) -> None:
        self._seconds: dict[int, _Second] = {}
        self._missing: set[int] = set()
        self._newest = 0

    def count(self, stage: str, at_ms: int, share: float = 1.0) -> None:
        """Counts a record. It stands for the records of all partitions, of which `share` are read."""
        second = self._second(at_ms)
        if second is not None:
            second.counts[stage] += 1 / share

    def time(self, step: str, at_ms: int, took_ms: float) -> None:
        """Takes the time of a step that ended at `at_ms`, milliseconds."""
        second = self._second(at_ms)
        if second is not None:
            second.times[step][int(math.log1p(max(took_ms, 0.0)) * _STEPS)] += 1

    def skip(self, from_ms: int, to_ms: int) -> None:
        """Leaves out seconds whose records were not read."""
        last = to_ms // 1000
        self._missing.update(range(max(from_ms // 1000, last - SECONDS), last + 1))

    def rates(self, now_ms: int) -> dict[str, float]:
        """Records per second of each stage."""
        end = now_ms // 1000 - _LATE_S
        seconds = [s for s in range(end - _RATE_S, end) if s not in self._missing]
        sums = defaultdict[str, float](float)
        for second in seconds:
            for stage, count in self._counts(second).items():
                sums[stage] += count
        return {stage: total / len(seconds) for stage, total in sums.items()}

    def series(self, stage: str, now_ms: int) -> list[float | None]:
        """Records of each of the last seconds, oldest first; `None` for one that was not read."""
        end = now_ms // 1000 - _LATE_S
        return [
            None if second in self._missing else round(self._counts(second).get(stage, 0.0), 1)
            for second in range(end - SECONDS, end)
        ]

    def times(self, now_ms: int) -> dict[str, dict[str, float]]:
        """Of each step: 50th and 95th percentile and the maximum, milliseconds, and the number of times."""
        first = now_ms // 1000 - _TIMES_S
        merged: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for number, second in self._seconds.items():
            if number >= first:
                for step, buckets in second.times.items():
                    for bucket, count in buckets.items():
                        merged[step][bucket] += count
        return {step: _percentiles(buckets) for step, buckets in merged.items()}

    def expire(self, now_ms: int) -> None:
        """Drops seconds that are too old."""
        oldest = now_ms // 1000 - SECONDS - _LATE_S - 1
        for number in [n for n in self._seconds if n < oldest or n > now_ms // 1000 + _AHEAD_S]:
            del self._seconds[number]
        self._missing = {n for n in self._missing if n >= oldest}

    def _counts(self, number: int) -> Mapping[str, float]:
        second = self._seconds.get(number)
        return {} if second is None else second.counts

    def _second(self, at_ms: int) -> _Second | None:
        number = at_ms // 1000
        found = self._seconds.get(number)
        if found is None:
            if len(self._seconds) > SECONDS + 60 and number < max(self._seconds) - SECONDS:
                return None  # of a writer whose clock is wrong, or of long ago
            found = self._seconds[number] = _Second()
            if len(self._seconds) > 2 * SECONDS:
                del self._seconds[min(self._seconds)]
        return found


def _percentiles(buckets: Mapping[int, int]) -> dict[str, Any]:
    total = sum(buckets.values())
    result: dict[str, Any] = {"count": total}
    for name, part in (("p50", 0.5), ("p95", 0.95), ("max", 1.0)):
        below = 0
        for bucket in sorted(buckets):
            below += buckets[bucket]
            if below >= total * part:
                result[name] = round(math.expm1((bucket + 0.5) / _STEPS), 1)
                break
    return result
