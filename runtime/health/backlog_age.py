"""Age of the oldest unprocessed record of each partition, without reading the record. Pure.

Why: docs/decisions/0051-estimate-the-age-of-a-backlog-from-sampled-offsets-and-read-timestamps.md
"""

from collections.abc import Mapping

from runtime.model.end_samples import EndSamples
from runtime.model.records import Offsets, TopicPartition


class BacklogAges:
    """Estimates ages from two bounds, of which the smaller counts.

    1. Offsets: a record at the position was written after the latest sample whose end was not above the position.
    2. Time: it was written after the record before it, the last one that was read.

    The first is wrong by the time between two samples at most, and knows nothing before the first sample. The second is
    wrong in a topic that was idle, or has records with the times of others (imports, replays).
    """

    def __init__(self) -> None:
        self._ends: dict[TopicPartition, EndSamples] = {}
        """Samples of each partition, from the latest one that is not above the position on."""

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
            samples = self._ends.setdefault(tp, EndSamples())
            samples.add(now, ends[tp])
            samples.forget_before(positions[tp])
            if positions[tp] >= ends[tp]:
                continue
            waited, longer = samples.waited(positions[tp], now)
            read = [now - read_ms[tp] / 1000] if read_ms.get(tp, 0) > 0 else []
            ages[tp] = max(0.0, min([*read, waited] if not longer else read, default=waited))
        return ages
