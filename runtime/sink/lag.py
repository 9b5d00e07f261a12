"""How far a sink is behind its topics, in records and in seconds."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from runtime.metrics.sink import TopicLag
from runtime.model.records import Offsets, TopicPartition
from runtime.sink.placement import SinkPosition
from runtime.sink.ports import Polled


@dataclass(slots=True)
class _Partition:
    stored: int | None = None
    """The offset before which everything is stored; `None` until the database says."""
    end: int = 0
    """Last stable offset, as of the last answer of the broker."""
    since: float | None = None
    """When records were first seen to wait, seconds; `None` without any."""
    heads: deque[tuple[int, float]] = field(default_factory=deque)
    """Offset and time, seconds, of the first record of each polled batch that is not stored."""

    @property
    def waits(self) -> bool:
        """Whether there are records that are not stored, or may be."""
        return self.stored is None or self.stored < self.end

    def age_s(self, now: float) -> float:
        """The age of the oldest record that is not stored: since it was written if it is polled, or first seen."""
        oldest = min((written for _, written in self.heads), default=self.since)
        return max(now - oldest, 0.0) if self.waits and oldest is not None else 0.0


class SinkLag:
    """The lag of the assigned partitions. It grows by itself while nothing is stored.

    Arguments:
        service: name of the service.
        clock: the time.
    """

    def __init__(self, service: str, clock: Callable[[], datetime]) -> None:
        self.service = service
        self._clock = clock
        self._partitions: dict[TopicPartition, _Partition] = {}

    def assign(self, ends: Offsets) -> None:
        """Replaces the partitions. One that was assigned before keeps its position."""
        self._partitions = {tp: self._partitions.get(tp) or _Partition() for tp in ends}
        self.reach(ends)

    def reach(self, ends: Offsets) -> None:
        """Takes last stable offsets."""
        for tp, end in ends.items():
            if (partition := self._partitions.get(tp)) is not None:
                partition.end = end
                if partition.since is None and partition.waits:
                    partition.since = self._now()

    def poll(self, polled: Polled) -> None:
        """Takes polled records, which are not stored yet."""
        self.reach(polled.ends)
        for tp, records in polled.records.items():
            partition = self._partitions.get(tp)
            if partition is None or not records:
                continue
            first = records[0]
            if first.offset >= (partition.stored or 0) and not any(at >= first.offset for at, _ in partition.heads):
                written = first.timestamp / 1000 if first.timestamp > 0 else self._now()
                partition.heads.append((first.offset, written))

    def store(self, positions: Mapping[TopicPartition, SinkPosition]) -> None:
        """Takes the offsets that the database has."""
        for tp, (_, offset) in positions.items():
            if (partition := self._partitions.get(tp)) is None or partition.stored == offset:
                continue
            if offset < (partition.stored or 0):
                partition.heads.clear()  # of a log that was made anew
            while partition.heads and partition.heads[0][0] < offset:
                partition.heads.popleft()
            partition.stored = offset
            partition.since = self._now() if partition.waits else None

    def by_topic(self) -> Iterator[TopicLag]:
        """The records of each topic that are not stored, and the age of the oldest of them."""
        now, topics = self._now(), defaultdict[str, list[_Partition]](list)
        for tp, partition in self._partitions.items():
            topics[tp.topic].append(partition)
        for topic, partitions in sorted(topics.items()):
            records = sum(p.end - p.stored for p in partitions if p.stored is not None and p.waits)
            yield TopicLag(self.service, topic, records, max(p.age_s(now) for p in partitions))

    def _now(self) -> float:
        return self._clock().timestamp()
