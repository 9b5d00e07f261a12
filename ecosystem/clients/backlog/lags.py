"""Positions of services from committed offsets, and their lag. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from runtime.group.composition import CommittedGroup
from runtime.model.log_ids import LogIds
from runtime.model.progress import services_of
from runtime.model.records import Offsets, TopicPartition
from runtime.model.service import Start
from runtime.model.topology import Topology


class Reader(NamedTuple):
    """A service and a partition that it reads."""

    service: str
    tp: TopicPartition


class ReaderPosition(NamedTuple):
    """The offset before which a service has processed everything, and the group that committed it."""

    group: str
    offset: int


class Head(NamedTuple):
    """The oldest record of a partition that a service has not processed.

    Arguments:
        offset: its offset; the end of the partition if there is no such record.
        timestamp_ms: when it was written, milliseconds; `None` if there is no such record, or it has no timestamp.
    """

    offset: int
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Lag:
    """The backlog of a service in a partition.

    Arguments:
        service: name of the service; of a group that is none of the ecosystem's, the name of the group.
        group: that committed the position.
        topic: name of the topic.
        partition: number of the partition.
        position: offset of the oldest unprocessed record; the end without one.
        end: last stable offset.
        seconds: age of the oldest unprocessed record; 0 without one, `None` if unknown.
    """

    service: str
    group: str
    topic: str
    partition: int
    position: int
    end: int
    seconds: float | None

    @property
    def records(self) -> int:
        """Offsets up to the end. Those of transaction markers between records are counted."""
        return self.end - self.position


@dataclass(frozen=True, slots=True)
class Backlog:
    """The backlog of all services.

    Arguments:
        lags: of each service, topic and partition, in this order.
        never_started: services that no group has ever read for.
        unknown: why the positions of a service with a sink are unknown, by service.
    """

    lags: tuple[Lag, ...]
    never_started: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)


def oldest_s(lags: Iterable[Lag]) -> float | None:
    """The age of the oldest unprocessed record, seconds; `None` if it is unknown for one of the lags.

    >>> oldest_s([Lag("a", "a", "orders", p, 0, 1, seconds) for p, seconds in enumerate((2.0, 7.5))])
    7.5
    """
    ages = [lag.seconds for lag in lags]
    return None if None in ages else max((age for age in ages if age is not None), default=0.0)


def positions(
    topology: Topology, groups: Collection[CommittedGroup], ids: LogIds, starts: Offsets, ends: Offsets
) -> dict[Reader, ReaderPosition]:
    """The position of every service in every partition that it reads, as the runtime would continue from there.

    Arguments:
        topology: all services.
        groups: all groups of the deployment, with what they have committed.
        ids: log ids of the topics.
        starts: log start offset of each partition.
        ends: last stable offset of each partition.
    """
    result: dict[Reader, ReaderPosition] = {}
    for service in topology.services:
        own = [group for group in groups if service.name in services_of(group.name)]
        for tp in (tp for tp in ends if service.name in topology.readers.get(tp.topic, ())):
            found = [
                ReaderPosition(group.name, position)
                for group in groups
                for position in group.positions([service.name], tp, ids).values()
            ]
            if found:
                # Beyond the end only if the log was truncated, which the group finds out when it reads on.
                result[Reader(service.name, tp)] = max(found, key=lambda p: (p.offset <= ends[tp], p.offset))
            elif own:
                from_now = topology.start(service.name, tp.topic) is Start.NOW
                result[Reader(service.name, tp)] = ReaderPosition(own[0].name, (ends if from_now else starts)[tp])
    known = {service.name for service in topology.services}
    for group in groups:
        if services_of(group.name).isdisjoint(known):  # of somebody else who reads our topics
            for tp in group.committed.keys() & ends.keys():
                result[Reader(group.name, tp)] = ReaderPosition(group.name, group.committed[tp].offset)
    return result


def lags(
    found: Mapping[Reader, ReaderPosition], heads: Mapping[Reader, Head], ends: Offsets, now_ms: int
) -> tuple[Lag, ...]:
    """The lag of every reader.

    Arguments:
        found: positions.
        heads: of readers whose position is below the end: the oldest unprocessed record. Missing if it is not known.
        ends: last stable offsets.
        now_ms: the time, milliseconds.
    """
    result = []
    for reader, (group, offset) in sorted(found.items()):
        service, tp = reader
        end = ends[tp]
        head = heads.get(reader)
        position = min(offset if head is None else max(offset, head.offset), end)
        seconds: float | None = 0.0
        if position < end:
            written_ms = None if head is None else head.timestamp_ms
            seconds = None if written_ms is None else max(0.0, (now_ms - written_ms) / 1000)
        result.append(Lag(service, group, tp.topic, tp.partition, position, end, seconds))
    return tuple(result)
