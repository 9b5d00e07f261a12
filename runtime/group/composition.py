"""Where a new composition goes on: what was decided was decided by services, whichever group they were in. Pure.

A group is named after its composition, so a new composition is a new group, which Kafka would start at the beginning.
`runtime/group/offset_migration.py` asks here where to start it instead.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from runtime.errors import NoCommonOffset
from runtime.model.records import TopicPartition


@dataclass(frozen=True, slots=True)
class CommittedGroup:
    """A consumer group and what it has committed."""

    name: str
    committed: Mapping[TopicPartition, int]

    @property
    def services(self) -> frozenset[str]:
        return services_of(self.name)


def services_of(group: str) -> frozenset[str]:
    """The services of the composition that a group is named after."""
    return frozenset(group.split("+"))


def furthest(service: str, tp: TopicPartition, groups: Iterable[CommittedGroup]) -> int:
    """What lies before this offset has been decided by the service, in whichever group it was then."""
    return max((g.committed.get(tp, 0) for g in groups if service in g.services), default=0)


def furthest_behind(services: Iterable[str], tp: TopicPartition, groups: Collection[CommittedGroup]) -> int | None:
    """Where the service stands that is behind the others; `None` if none of them has committed anything."""
    begun = {s for s in services for g in groups if s in g.services and tp in g.committed}
    return min((furthest(s, tp, groups) for s in begun), default=None)


def outdated(other: CommittedGroup, own: CommittedGroup, readers: Mapping[TopicPartition, Collection[str]]) -> bool:
    """Whether `own` has run since `other` did, so that it took over from it already.

    That is so if it is ahead of it somewhere and behind it nowhere, for who takes over starts nowhere behind. `readers`
    are the services of `own` by what they read.
    """
    shared = [tp for tp, services in readers.items() if not other.services.isdisjoint(services)]
    lead = [own.committed.get(tp, -1) - other.committed.get(tp, -1) for tp in shared]
    return min(lead, default=0) >= 0 and max(lead, default=0) > 0


class ResumePoint:
    """Finds the offset at which all services of a group can go on in a partition.

    Before it everything is decided by all of them, from there on nothing by any, but for what the group itself has
    marked, which it will pass over. A service has decided what lies before its own position, and what is marked by a
    group that it was part of: the mark was written in one transaction with the decision.

    Arguments:
        group: the group that is to go on.
        positions: how far each of its services has come that read the partition.
        end: where the log ends.
    """

    def __init__(self, group: str, positions: Mapping[str, int], end: int) -> None:
        self._group = group
        self._positions = positions
        self._first_open: int | None = None
        self.end = end

    @property
    def start(self) -> int:
        """The first offset that has to be looked at."""
        return min(self._positions.values())

    @property
    def offset(self) -> int:
        """Where to go on, once everything up to the end was seen."""
        return self.end if self._first_open is None else self._first_open

    def see(self, offset: int, mark: str | None) -> None:
        """Takes in the next message, with the group that marked it as decided. Raises `NoCommonOffset`."""
        if mark == self._group or offset >= self.end:
            return
        marked = services_of(mark) if mark is not None else frozenset()
        behind = {s for s, position in self._positions.items() if offset >= position and s not in marked}
        if behind and self._first_open is None:
            self._first_open = offset
        if behind and len(behind) < len(self._positions):
            raise NoCommonOffset(offset, behind, "+".join(sorted(behind)))
        if not behind and self._first_open is not None and mark is not None:
            raise NoCommonOffset(self._first_open, self._positions.keys(), mark)
