"""Migrates the positions of a worker's services from other groups to the group that it joins.

A worker joins the group of its composition. If a group runs with some of its services, and with no others, it joins
that group. In both cases its services continue where they stopped, in whichever group: the restore commits their
positions with the first batch (`runtime/state/resume.py`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from runtime.common.backoff import Backoff, retry
from runtime.common.settings import Settings
from runtime.errors import CompositionInUse
from runtime.group.composition import CommittedGroup, RunningGroup, group_to_join, positions_elsewhere
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.model.progress import services_of
from runtime.model.records import TopicPartition
from runtime.model.topology import Topology

log = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_S = 0.5
"""Seconds between two attempts after an error of the broker."""

_POLL_S = 0.05
"""Seconds between two requests while a rebalance is in progress."""

_CONCURRENT = 16
"""Groups that are asked for at the same time: a cluster may have hundreds."""


@dataclass(frozen=True, slots=True)
class GroupToJoin:
    """The group that a worker joins.

    Arguments:
        name: of the group, without the deployment's prefix.
        elsewhere: offsets before which services have processed everything in other groups, by partition and service.
    """

    name: str
    elsewhere: Mapping[TopicPartition, Mapping[str, int]] = field(default_factory=dict)


async def find_group(settings: Settings, topology: Topology) -> GroupToJoin:
    """Finds the group that a worker joins, and how far its services got in others. Waits until transactions end.

    Arguments:
        settings: of the worker.
        topology: its services.

    Raises:
        CompositionInUse: services of the worker run in a group that it cannot join.
    """
    return await retry(
        lambda: _find(settings, topology),
        Backoff(_RETRY_S),
        passes=lambda error: isinstance(error, KafkaError) and error.retriable,
        report=lambda error: log.warning("offset migration failed, retried error=%r", error),
    )


async def _find(settings: Settings, topology: Topology) -> GroupToJoin:
    names = KafkaNames(settings.topic_prefix)
    readers = {
        TopicPartition(topic, p): topology.readers[topic]
        for topic in topology.consumed
        for p in range(settings.partitions)
    }
    consumer = clients.standalone_consumer(settings)
    await consumer.start()
    try:
        async with clients.admin(settings) as admin:
            related = await _related_groups(admin, consumer, names, topology, list(readers))
            running = await _each(related, lambda name: _running_group(admin, names, topology, name))
        name = group_to_join(
            [s.name for s in topology.services], [group for group in running if group.members], names.prefix
        )
        if not related - {name}:
            return GroupToJoin(name)
        # Not before: a group that runs may commit more.
        committed = await _each(related, lambda name: _committed(consumer, names, name, list(readers)))
        physical = [names.physical(tp) for tp in readers]
        ends = await aiokafka_internals.log_ends(consumer, physical, committed=False)
        ids = await aiokafka_internals.topic_ids(consumer, [names.topic(topic) for topic in topology.consumed])
    finally:
        await consumer.stop()
    elsewhere = positions_elsewhere(
        next((group for group in committed if group.name == name), CommittedGroup(name, {})),
        [group for group in committed if group.name != name],
        readers,
        {names.partition(tp): end for tp, end in ends.items()},
        {names.logical(topic): id_ for topic, id_ in ids.items()},
    )
    if elsewhere:
        log.info("offsets migrated to_group=%s partitions=%d", names.group(name), len(elsewhere))
    return GroupToJoin(name, elsewhere)


async def _related_groups(
    admin: AIOKafkaAdminClient,
    consumer: AIOKafkaConsumer,
    names: KafkaNames,
    topology: Topology,
    tps: Collection[TopicPartition],
) -> set[str]:
    """The groups whose name contains a service of the topology, or that have read one of its inputs.

    A service may have joined a group whose name does not contain it.
    """
    services = {s.name for s in topology.services}
    found = [
        names.logical(group)
        for group, protocol in await admin.list_consumer_groups()
        if group.startswith(names.prefix) and protocol in {"consumer", ""}  # "": no member has joined it yet
    ]
    named = {name for name in found if not services.isdisjoint(services_of(name))}
    others = await _each([n for n in found if n not in named], lambda name: _committed(consumer, names, name, tps))
    return named | {group.name for group in others if group.committed}


async def _running_group(admin: AIOKafkaAdminClient, names: KafkaNames, topology: Topology, name: str) -> RunningGroup:
    """The members of a group that read inputs of services that they share with the topology."""
    group, own, found = names.group(name), topology.group == name, list[_Member]()
    members = [_Member.of(m[3], name) for m in await _members(admin, group)]
    for member in members:
        shared = [s for s in topology.services if s.name in member.services]
        # A group of a deployment whose prefix starts with ours has a name like ours, but reads other topics.
        if not member.topics.isdisjoint(names.topic(t.name) for s in shared for t in s.topics):
            found.append(member)
    if own:
        _reject_earlier_versions(group, found)
    services = frozenset[str]().union(*(member.services for member in found))
    return RunningGroup(name, len(found), services, all(member.reports for member in found))


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of a group, from its metadata in a DescribeGroups response."""

    topics: frozenset[str]
    services: frozenset[str]
    reports: bool
    has_instance: bool

    @classmethod
    def of(cls, metadata: bytes, group: str) -> "_Member":
        topics, info = aiokafka_internals.member_metadata(metadata)
        reported = str(info.get("services") or "")
        return cls(frozenset(topics), services_of(reported or group), bool(reported), bool(info.get("instance")))


def _reject_earlier_versions(group: str, members: Collection[_Member]) -> None:
    """Raises `CompositionInUse` if a member is of a version that drops unknown fields from rows.

    It would write the row of an order without the payments that this version has added to it.
    """
    earlier = [member for member in members if not member.has_instance]
    if earlier:
        raise CompositionInUse(
            f"{len(earlier)} member(s) of group {group} are of an earlier version, which would lose payments and "
            "check-ins that this version has counted: stop them first (a killed one leaves the group after its "
            "SESSION_TIMEOUT_S)"
        )


async def _members(admin: AIOKafkaAdminClient, group: str) -> list[Any]:
    """The members of a group with their metadata, which the coordinator has only while no rebalance is in progress."""
    state, members = await aiokafka_internals.describe_group(admin, group)
    while state in {"PreparingRebalance", "CompletingRebalance"}:
        await asyncio.sleep(_POLL_S)
        state, members = await aiokafka_internals.describe_group(admin, group)
    return members


async def _committed(
    consumer: AIOKafkaConsumer, names: KafkaNames, group: str, tps: Collection[TopicPartition]
) -> CommittedGroup:
    physical = [names.physical(tp) for tp in tps]
    found = await aiokafka_internals.stable_commits(consumer, names.group(group), physical)
    return CommittedGroup(group, {names.partition(tp): commit for tp, commit in found.items() if commit is not None})


async def _each(names: Iterable[str], ask: Callable[[str], Awaitable[T]]) -> list[T]:
    """Asks about each group, a few at a time."""
    limit = asyncio.Semaphore(_CONCURRENT)

    async def limited(name: str) -> T:
        async with limit:
            return await ask(name)

    return await asyncio.gather(*map(limited, sorted(names)))
