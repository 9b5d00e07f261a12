"""Migrates committed offsets from earlier compositions of a worker's services to its own group, before it joins.

Reads the offsets of all groups that share a service with the worker's group, and commits for its own group where its
services resume. `runtime/group/composition.py` computes that.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError, KafkaError, for_code

from runtime.common.backoff import Backoff, retry
from runtime.common.settings import Settings
from runtime.data_loss.losses import LossCause, LossPath, LossReporter
from runtime.errors import CompositionInUse, NoCommonOffset
from runtime.group.composition import (
    CommittedGroup,
    ResumePoint,
    lowest_position,
    processed_until,
    services_of,
    superseded,
)
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.model.records import CONSUMED_BY, Header, TopicPartition
from runtime.model.topology import Topology

log = logging.getLogger(__name__)

_RETRY_S = 0.5
"""Seconds between two attempts after an error of the broker."""

_POLL_S = 0.05
"""Seconds between two requests while a rebalance or a transaction is in progress."""


async def migrate_offsets(settings: Settings, topology: Topology, lost: LossReporter) -> None:
    """Makes the worker's group resume where other compositions of its services stopped. Call it before it joins.

    Does nothing if there are no such compositions, or if the group has members already. Waits until open transactions
    have ended.

    Arguments:
        settings: of the worker.
        topology: its services.
        lost: gets the ranges of records that were removed before a service read them.

    Raises:
        CompositionInUse: another composition of these services is running, or they stopped at different offsets, so
            that no offset exists at which none would process a message twice or never.
        RecordsLost: records are lost and ON_LOST_RECORDS=stop.
    """
    await retry(
        partial(_migrate, settings, topology, lost),
        Backoff(_RETRY_S),
        passes=lambda error: isinstance(error, KafkaError) and error.retriable,
        report=lambda error: log.warning("offset migration failed, retried error=%r", error),
    )


async def _migrate(settings: Settings, topology: Topology, lost: LossReporter) -> None:
    names = KafkaNames(settings.topic_prefix)
    async with clients.admin(settings) as admin:
        related = await _related_groups(admin, names, topology)
        members = await _members(admin, names.group(topology.group)) if topology.group in related else []
        _reject_earlier_versions(names.group(topology.group), members)
        if members or not related - {topology.group}:
            return  # the members of the group migrated its offsets before they joined
        for name in sorted(related - {topology.group}):
            await _reject_if_running(admin, names, topology, name)
    consumer = clients.standalone_consumer(settings)
    await consumer.start()
    try:
        readers = _readers(topology, settings.partitions)
        groups = [
            CommittedGroup(name, await _committed(consumer, names, name, readers))
            for name in related | {topology.group}
        ]
        own = next(g for g in groups if g.name == topology.group)
        # A group without offsets here has processed nothing here; it may belong to another deployment.
        others = [g for g in groups if g is not own and g.committed and not superseded(g, own, readers)]
        if not others:
            return
        offsets = await _resume_offsets(consumer, names, own, others, readers, lost)
    finally:
        await consumer.stop()
    ahead = {tp: offset for tp, offset in offsets.items() if offset > own.committed.get(tp, -1)}
    if ahead:
        await _commit(settings, names, topology.group, ahead)
        log.info("offsets migrated from_groups=%s partitions=%d", [g.name for g in others], len(ahead))


def _readers(topology: Topology, partitions: int) -> dict[TopicPartition, frozenset[str]]:
    """The services that read each partition."""
    return {
        TopicPartition(topic, p): frozenset(s.name for s in topology.services if any(t.name == topic for t in s.topics))
        for topic in topology.consumed
        for p in range(partitions)
    }


async def _related_groups(admin: AIOKafkaAdminClient, names: KafkaNames, topology: Topology) -> set[str]:
    """The groups that share a service with the topology, by their names; its own group if it exists."""
    services = {s.name for s in topology.services}
    groups = [
        names.logical(group)
        for group, protocol in await admin.list_consumer_groups()
        if group.startswith(names.prefix) and protocol in {"consumer", ""}  # "": no member has joined it yet
    ]
    return {name for name in groups if not services.isdisjoint(services_of(name))}


async def _describe(admin: AIOKafkaAdminClient, group: str) -> tuple[str, list[Any]]:
    """State and members of a group."""
    (response,) = await admin.describe_consumer_groups([group])  # aiokafka misreads a response about several groups
    # Relies on the fields of DescribeGroups responses by position, here and where members are read: [3] is metadata.
    ((code, _name, state, _type, _protocol, members),) = response.groups
    if code:
        raise for_code(code)(f"cannot describe group {group}")
    return state, members


async def _members(admin: AIOKafkaAdminClient, group: str) -> list[Any]:
    """The members of a group with their metadata, which the coordinator has only while no rebalance is in progress."""
    state, members = await _describe(admin, group)
    while state in {"PreparingRebalance", "CompletingRebalance"}:
        await asyncio.sleep(_POLL_S)
        state, members = await _describe(admin, group)
    return members


def _reject_earlier_versions(group: str, members: Collection[Any]) -> None:
    """Raises `CompositionInUse` if a member is of a version that drops unknown fields from rows.

    It would write the row of an order without the payments that this version has added to it.
    """
    earlier = [m for m in members if not aiokafka_internals.names_instance(m[3])]
    if earlier:
        raise CompositionInUse(
            f"{len(earlier)} member(s) of group {group} are of an earlier version, which would lose payments and "
            "check-ins that this version has counted: stop them first (a killed one leaves the group after its "
            "SESSION_TIMEOUT_S)"
        )


async def _reject_if_running(admin: AIOKafkaAdminClient, names: KafkaNames, topology: Topology, name: str) -> None:
    """Raises `CompositionInUse` if the group has members that read an input of a service that it shares with us."""
    shared = {s.name: s for s in topology.services if s.name in services_of(name)}
    topics = {names.topic(t.name) for s in shared.values() for t in s.topics}
    members = await _members(admin, names.group(name))
    # A group of a deployment whose prefix starts with ours has a name like ours, but reads other topics.
    running = [m for m in members if not topics.isdisjoint(aiokafka_internals.subscribed_topics(m[3]))]
    if running:
        raise CompositionInUse(
            f"{', '.join(sorted(shared))} runs already, in group {names.group(name)} with {len(running)} member(s): "
            "stop its workers first (a killed one leaves the group after its SESSION_TIMEOUT_S)"
        )


async def _committed(
    consumer: AIOKafkaConsumer, names: KafkaNames, group: str, tps: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    found = await aiokafka_internals.stable_offsets(consumer, names.group(group), [names.physical(tp) for tp in tps])
    return {names.partition(tp): offset for tp, offset in found.items() if offset is not None}


async def _resume_offsets(
    consumer: AIOKafkaConsumer,
    names: KafkaNames,
    own: CommittedGroup,
    others: list[CommittedGroup],
    readers: Mapping[TopicPartition, Collection[str]],
    lost: LossReporter,
) -> dict[TopicPartition, int]:
    """Where `own` resumes in the partitions that it shares with the others. Raises `CompositionInUse`."""
    shared = frozenset[str]().union(*(g.services for g in others))
    read = {names.physical(tp): services for tp, services in readers.items() if not shared.isdisjoint(services)}
    starts = await aiokafka_internals.log_starts(consumer, read)
    ends = await aiokafka_internals.log_ends(consumer, read, committed=False)
    points: dict[TopicPartition, ResumePoint] = {}
    for physical, services in read.items():
        tp = names.partition(physical)
        # Records that retention removed need no processing any more.
        positions = {s: max(processed_until(s, tp, [own, *others]), starts[physical]) for s in services}
        points[tp] = ResumePoint(own.name, positions, ends[physical])
    await _observe_tails(
        consumer, names, own.name, {tp: point for tp, point in points.items() if point.start < point.end}
    )
    result: dict[TopicPartition, int] = {}
    for tp, point in points.items():
        start, services = starts[names.physical(tp)], readers[tp]
        behind = lowest_position(services, tp, [own, *others])
        if behind is not None and (behind < start == point.offset or behind > point.end):
            result[tp] = behind  # the rebalance that assigns the partition reports the lost range and skips it
        elif point.offset:
            result[tp] = point.offset
            if behind is not None and behind < start:
                lost.report(*tp, behind, start, LossPath.INPUT, LossCause.REMOVED)
    return result


async def _observe_tails(
    consumer: AIOKafkaConsumer, names: KafkaNames, own: str, points: Mapping[TopicPartition, ResumePoint]
) -> None:
    """Feeds each resume point the messages between its start and its end. Raises `CompositionInUse`."""
    todo = {names.physical(tp): point for tp, point in points.items()}
    while todo:
        stable = await aiokafka_internals.log_ends(consumer, todo, committed=True)
        if all(stable[tp] >= point.end for tp, point in todo.items()):
            break
        await asyncio.sleep(_POLL_S)  # a transaction is open that was open when the ends were read
    consumer.assign(list(todo))
    for tp, point in todo.items():
        consumer.seek(tp, point.start)
    while todo:
        for tp, records in (await consumer.getmany(timeout_ms=200, max_records=5000)).items():
            point = points[names.partition(tp)]
            try:
                for record in records:
                    point.observe(record.offset, _consumed_by(record.headers))
                    if record.last_offset is not None:  # unreadable, its headers too
                        point.observe(record.last_offset, None)
            except NoCommonOffset as error:
                raise CompositionInUse(
                    f"{own} cannot resume where its services stopped, because they stopped at different offsets: in "
                    f"{tp.topic}[{tp.partition}], which ends at {point.end}, {error}, while others have processed "
                    f"it or later ones. Run {error.first} by itself until its lag is 0, stop it, and start {own} again"
                ) from None
        reached = aiokafka_internals.positions(consumer)  # also after control records at the end
        todo = {tp: point for tp, point in todo.items() if reached[tp] < point.end}


def _consumed_by(headers: Iterable[Header]) -> str | None:
    return next(((value or b"").decode(errors="replace") for name, value in headers if name == CONSUMED_BY), None)


async def _commit(settings: Settings, names: KafkaNames, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    # Relies on aiokafka committing without a member id for a consumer that never joins.
    consumer = clients.non_member_consumer(settings, names.group(group))
    await consumer.start()
    try:
        physical = {names.physical(tp): offset for tp, offset in offsets.items()}
        consumer.assign(list(physical))
        await consumer.commit(physical)
    except CommitFailedError:
        # The group has members by now. Each migrated the offsets before it joined, from the same stopped groups.
        log.info("offsets migrated by another worker")
    finally:
        await consumer.stop()
