"""Finds the group that a worker joins, and how far its services got in other groups. Pure.

A consumer group is named after its composition. Its services may have processed messages in other groups before, and
other services may have joined it since. `runtime/group/offset_migration.py` asks the broker.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from runtime.errors import CompositionInUse
from runtime.model.log_ids import CommittedOffset, LogIds, OffsetMetadata
from runtime.model.progress import NOTHING_MORE, services_of
from runtime.model.records import Offsets, TopicPartition


@dataclass(frozen=True, slots=True)
class RunningGroup:
    """A group with members.

    Arguments:
        name: without the deployment's prefix.
        members: number of its members.
        services: those of its members.
        reports: whether each member reports its services. Members of earlier versions do not.
    """

    name: str
    members: int
    services: frozenset[str]
    reports: bool = True


@dataclass(frozen=True, slots=True)
class CommittedGroup:
    """A consumer group and its committed offsets."""

    name: str
    committed: Mapping[TopicPartition, CommittedOffset]

    def positions(self, services: Iterable[str], tp: TopicPartition, ids: LogIds) -> dict[str, int]:
        """The offset before which each service has processed everything; services that never read are left out.

        Arguments:
            services: names of services.
            tp: the partition.
            ids: log ids: an offset of another log of the same name says nothing.
        """
        commit = self.committed.get(tp)
        if commit is None:
            return {}
        metadata = OffsetMetadata.parse(commit.metadata)
        if metadata is not None and metadata.recreated(tp.topic, ids):
            return {}
        progress = NOTHING_MORE if metadata is None else metadata.progress
        found = {s: progress.position(s, self.name, commit.offset) for s in services}
        return {s: position for s, position in found.items() if position is not None}


def group_to_join(services: Collection[str], running: Iterable[RunningGroup], prefix: str = "") -> str:
    """Returns the group of a worker: that of its composition, or one that runs already with fewer services.

    Raises `CompositionInUse` if its services run in a group that it cannot join.

    Arguments:
        services: names of the services of the worker.
        running: groups of the deployment that have members.
        prefix: of the deployment, for messages.
    """
    own = "+".join(sorted(services))
    related = {group.name: group for group in running if not group.services.isdisjoint(services)}
    if own in related or not related:
        return own
    (name, group), *others = sorted(related.items())
    if not others and services_of(name) < set(services):
        if group.reports:
            return name
        raise CompositionInUse(
            f"{_running(group, services, prefix)}, some of an earlier version: update them before you add a service, "
            "or stop them first"
        )
    raise CompositionInUse(
        "; ".join(_running(group, services, prefix) for _, group in sorted(related.items()))
        + ": stop its workers first (a killed one leaves the group after its SESSION_TIMEOUT_S)"
    )


def positions_elsewhere(
    own: CommittedGroup,
    others: Collection[CommittedGroup],
    readers: Mapping[TopicPartition, Collection[str]],
    ends: Offsets,
    ids: LogIds,
) -> dict[TopicPartition, dict[str, int]]:
    """The furthest position of each service in other groups, where it is further than in its own group.

    Arguments:
        own: the group of the worker.
        others: other groups that share a service with it.
        readers: the services of the worker that read each partition.
        ends: log end offsets.
        ids: log ids of the topics.
    """
    result: dict[TopicPartition, dict[str, int]] = {}
    for tp, services in readers.items():
        here = own.positions(services, tp, ids)
        for group in others:
            for service, position in group.positions(services, tp, ids).items():
                further = position > max(here.get(service, -1), result.get(tp, {}).get(service, -1))
                # Beyond the end: the log was truncated. The own group has noticed, if it has read the log since.
                if further and (position <= ends[tp] or service not in here):
                    result.setdefault(tp, {})[service] = position
    return result


def _running(group: RunningGroup, services: Collection[str], prefix: str) -> str:
    shared = ", ".join(sorted(group.services.intersection(services)))
    return f"{shared} runs already, in group {prefix}{group.name} with {group.members} member(s)"
