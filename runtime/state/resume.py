"""Finds where the services of a worker resume in a partition: each where it stopped, or where it starts. Pure."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from runtime.data_loss import positions
from runtime.data_loss.positions import LostRange, Position
from runtime.model.progress import NOTHING_MORE, ServiceProgress
from runtime.model.records import TopicPartition
from runtime.model.service import Start
from runtime.model.topology import Topology

_ANY = ""
"""The one reader of all topics where no topology names the readers."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The services that read the inputs of a worker.

    Arguments:
        topology: the services. Without it, one reader of all topics.
        elsewhere: offsets before which services have processed everything in other groups, by partition and service.
        catch_up: services that start at the beginning of all topics.
    """

    topology: Topology | None = None
    elsewhere: Mapping[TopicPartition, Mapping[str, int]] = field(default_factory=dict)
    catch_up: Collection[str] = ()

    @property
    def group(self) -> str:
        """The consumer group of the worker."""
        return _ANY if self.topology is None else self.topology.group

    def readers(self, topic: str) -> frozenset[str]:
        """The services that read a topic."""
        return frozenset({_ANY}) if self.topology is None else self.topology.readers[topic]

    def holder(self, changelog: str) -> str:
        """The service whose table has this changelog."""
        if self.topology is None:
            return _ANY
        table = next(table for table in self.topology.tables.values() if table.changelog == changelog)
        return self.topology.holders[table.name].name

    def starts_now(self, service: str, topic: str) -> bool:
        """Whether a service that has never read the topic starts from now on."""
        if self.topology is None or service in self.catch_up:
            return False
        return self.topology.start(service, topic) is Start.NOW

    def progress(
        self, topic: str, ahead: Mapping[str, int], committed: ServiceProgress, offset: int | None
    ) -> ServiceProgress:
        """What to commit with the offsets of a partition of the topic.

        Arguments:
            topic: name of the topic.
            ahead: offsets of the services that are ahead.
            committed: the progress that the group has committed.
            offset: the offset committed with it; `None` if there is none, or none of this log.
        """
        if self.topology is None:
            return NOTHING_MORE
        own = {service.name for service in self.topology.services}
        absent = (committed.services(self.group) - own) if offset is not None else ()
        elsewhere = {s: committed.position(s, self.group, offset or 0) or 0 for s in absent}
        return ServiceProgress(self.topology.joined_readers(topic) - ahead.keys(), ahead, elsewhere)


class ResumePoint(NamedTuple):
    """Where a partition is read from.

    Arguments:
        offset: the position of the service that is furthest behind.
        ahead: positions of services above `offset`: each skips the records below its position.
        lost: the range of records that is skipped, as the broker no longer has it.
        is_new: whether a service starts here, or was in another group: its position is not committed yet.
    """

    offset: int
    ahead: Mapping[str, int]
    lost: LostRange | None
    is_new: bool


def committed_positions(
    readers: Collection[str], group: str, offset: int | None, progress: ServiceProgress
) -> dict[str, int | None]:
    """The positions of services as their group has committed them; `None` for a service that it has none of."""
    return {s: None if offset is None else progress.position(s, group, offset) for s in readers}


def resume_point(
    committed: Mapping[str, int | None],
    elsewhere: Mapping[str, int],
    starts_now: Callable[[str], bool],
    start: int,
    end: int,
    *,
    recreated: bool = False,
    with_state: Collection[str] = (),
) -> ResumePoint:
    """Finds where a partition is read from.

    A service continues where it stopped, in whichever group. A service that has never read the partition starts at its
    beginning, or where the others are.

    Arguments:
        committed: positions of the services that read the partition, from their group.
        elsewhere: positions of services in other groups.
        starts_now: whether a service that has never read the partition starts from now on.
        start: log start offset.
        end: log end offset.
        recreated: whether the group has read another log of this name.
        with_state: services that have state, hence have committed offsets before, which are gone.
    """
    known = {s: p for s in committed if (p := _further(committed[s], elsewhere.get(s))) is not None}
    found = {
        s: positions.input_position(known.get(s), start, end, recreated=recreated, has_state=s in with_state)
        for s in committed
        if s in known or recreated or s in with_state or not starts_now(s)
    }
    # Where the others are: those that have read the partition before, else those that start at its beginning.
    others = [found[s].offset for s in known] or [position.offset for position in found.values()]
    for service in committed.keys() - found.keys():
        found[service] = Position(min(others, default=end))
    offset = min(position.offset for position in found.values())
    lost = min((position.lost for position in found.values() if position.lost is not None), default=None)
    is_new = any(
        known.get(s) != committed[s] if s in known else known or (not (s in with_state or recreated) and starts_now(s))
        for s in committed
    )
    ahead = {s: position.offset for s, position in sorted(found.items()) if position.offset > offset}
    return ResumePoint(offset, ahead, lost, bool(is_new))


def _further(one: int | None, other: int | None) -> int | None:
    return max((p for p in (one, other) if p is not None), default=None)
