"""Age of the oldest unprocessed record of each partition, without reading the record. Pure.

Why: docs/decisions/0051-estimate-the-age-of-a-backlog-from-sampled-offsets-and-read-timestamps.md
"""

from collections import deque
from collections.abc import Mapping

from runtime.model.records import Offsets, TopicPartition

MOST_SAMPLES = 512
"""Samples kept of a partition while it does not advance. Then half of them are dropped: an age gets coarser, by
1/256 of the time since the oldest one."""


class BacklogAges:
    """Estimates ages from two bounds, of which the smaller counts.

    1. Offsets: a record at the position was written after the latest sample whose end was not above the position.
    2. Time: it was written after the record before it, the last one that was read.

    The first is wrong by the time between two samples at most, and knows nothing before the first sample. The second is
    wrong in a topic that was idle, or has records with the times of others (imports, replays).
    """

    def __init__(self) -> None:
        self._ends: dict[TopicPartition, deque[tuple[float, int]]] = {}
        """Time and end of samples, from the latest one that is not above the position on."""

    def observe(
        self, now: float, positions: Offsets, ends: Offsets, read_ms: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, float]:
        """Takes a sample. Returns the age, seconds, of each partition with unprocessed records.

        Arguments:
            now: seconds since 1970.
            positions: next offset to process of each owned partition.
            ends: last stable offsets. A partition that is missing, because its leader does not answer, has no age.
            read_ms: timestamp, milliseconds since 1970, of the last record read of each partition.
        """
        for tp in self._ends.keys() - positions.keys():
            del self._ends[tp]  # of another owner now
        ages: dict[TopicPartition, float] = {}
        for tp in positions.keys() & ends.keys():
            samples = self._ends.setdefault(tp, deque())
            _add(samples, now, ends[tp])
            while len(samples) > 1 and samples[1][1] <= positions[tp]:
                samples.popleft()
            if positions[tp] >= ends[tp]:
                continue
            bounds = [now - samples[0][0]] if samples[0][1] <= positions[tp] else []
            bounds += [now - read_ms[tp] / 1000] if read_ms.get(tp, 0) > 0 else []
            ages[tp] = max(0.0, min(bounds, default=now - samples[0][0]))
        return ages


def _add(samples: deque[tuple[float, int]], now: float, end: int) -> None:
    if samples and samples[-1][1] > end:
        samples.clear()  # the topic was created anew
    if samples and samples[-1][1] == end:
        samples.pop()  # the later sample of the same end is the better bound
    samples.append((now, end))
    if len(samples) > MOST_SAMPLES:
        gap_s, all_samples = 2 * (now - samples[0][0]) / MOST_SAMPLES, list(samples)
        samples.clear()
        samples.append(all_samples[0])
        for sample in all_samples[1:-1]:
            if sample[0] - samples[-1][0] >= gap_s:
                samples.append(sample)
        samples.append(all_samples[-1])
