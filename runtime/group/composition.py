"""Computes the offsets at which a new composition of services resumes. Pure.

A consumer group is named after its composition, so a new composition is a new group, which Kafka would start at the
beginning. Its services have processed messages in other groups before; their committed offsets, and the header
`consumed-by`, show how far. `runtime/group/offset_migration.py` commits the result.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from runtime.errors import NoCommonOffset
from runtime.model.records import TopicPartition


@dataclass(frozen=True, slots=True)
class CommittedGroup:
    """A consumer group and its committed offsets."""

    name: str
    committed: Mapping[TopicPartition, int]

    @property
    def services(self) -> frozenset[str]:
        return services_of(self.name)


def services_of(group: str) -> frozenset[str]:
    """The services of a composition, from the name of its group."""
    return frozenset(group.split("+"))


def processed_until(service: str, tp: TopicPartition, groups: Iterable[CommittedGroup]) -> int:
    """The offset before which the service has processed everything, in whichever group."""
    return max((g.committed.get(tp, 0) for g in groups if service in g.services), default=0)


def lowest_position(services: Iterable[str], tp: TopicPartition, groups: Collection[CommittedGroup]) -> int | None:
    """The position of the service that is furthest behind; `None` if none of them has committed an offset."""
    started = {s for s in services for g in groups if s in g.services and tp in g.committed}
    return min((processed_until(s, tp, groups) for s in started), default=None)


def superseded(other: CommittedGroup, own: CommittedGroup, readers: Mapping[TopicPartition, Collection[str]]) -> bool:
    """Whether `own` has run after `other`, so that its offsets include those of `other`.

    True if `own` is ahead in a partition and behind in none: a migration never starts behind the other group.

    Arguments:
        other: a group that shares services with `own`.
        own: the group that is about to start.
        readers: the services of `own` that read each partition.
    """
    shared = [tp for tp, services in readers.items() if not other.services.isdisjoint(services)]
    lead = [own.committed.get(tp, -1) - other.committed.get(tp, -1) for tp in shared]
    return min(lead, default=0) >= 0 and max(lead, default=0) > 0


class ResumePoint:
    """Finds the one offset at which all services of a group can resume in a partition.

    Before this offset every service has processed everything, from it on none has processed anything, except messages
    with `consumed-by` of the group itself, which it skips. A service has processed what is before its own position, and
    what has `consumed-by` of a group that it was in: that header is written in the transaction of the processing.

    Arguments:
        group: the group that resumes.
        positions: next offset to process of each of its services that read the partition.
        end: log end offset.
    """

    def __init__(self, group: str, positions: Mapping[str, int], end: int) -> None:
        self._group = group
        self._positions = positions
        self._first_unprocessed: int | None = None
        self.end = end

    @property
    def start(self) -> int:
        """The first offset to observe."""
        return min(self._positions.values())

    @property
    def offset(self) -> int:
        """The offset to resume at, once all messages from `start` to `end` were observed."""
        return self.end if self._first_unprocessed is None else self._first_unprocessed

    def observe(self, offset: int, consumed_by: str | None) -> None:
        """Adds the next message. Raises `NoCommonOffset`.

        Arguments:
            offset: of the message.
            consumed_by: the group that has processed it already, from its header.
        """
        if consumed_by == self._group or offset >= self.end:
            return
        processed = services_of(consumed_by) if consumed_by is not None else frozenset()
        behind = {s for s, position in self._positions.items() if offset >= position and s not in processed}
        if behind and self._first_unprocessed is None:
            self._first_unprocessed = offset
        if behind and len(behind) < len(self._positions):
            raise NoCommonOffset(offset, behind, "+".join(sorted(behind)))
        if not behind and self._first_unprocessed is not None and consumed_by is not None:
            raise NoCommonOffset(self._first_unprocessed, self._positions.keys(), consumed_by)
