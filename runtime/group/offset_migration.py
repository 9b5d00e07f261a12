"""Before a worker joins its group: the group goes on where other compositions of its services stopped.

Looks at the groups that share a service with it, and commits for its own where its services go on, which
`runtime/group/composition.py` finds.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError, KafkaError, for_code

from runtime.common.settings import Settings
from runtime.data_loss.losses import LossCause, LossPath, LossReporter
from runtime.errors import CompositionInUse, NoCommonOffset
from runtime.group.composition import CommittedGroup, ResumePoint, furthest, furthest_behind, outdated, services_of
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.model.records import CONSUMED_BY, Header, TopicPartition
from runtime.model.topology import Topology

log = logging.getLogger(__name__)

_RETRY_S = 0.5
_POLL_S = 0.05


async def migrate_offsets(settings: Settings, topology: Topology, lost: LossReporter) -> None:
    """Makes the worker's group go on where other compositions of its services stopped. To be awaited before it joins.

    Does nothing if there are none, or if the group is running. Waits until transactions of others in flight are over.
    Raises `CompositionInUse` if another composition of these services is running, or if they stopped at different
    places, so that going on would decide messages twice or never; and `RecordsLost`.
    """
    while True:
        try:
            await _adopt(settings, topology, lost)
        except KafkaError as error:
            if not error.retriable:
                raise
            log.warning("looking for other compositions failed, trying again error=%r", error)
            await asyncio.sleep(_RETRY_S)
        else:
            return


async def _adopt(settings: Settings, topology: Topology, lost: LossReporter) -> None:
    names = KafkaNames(settings.topic_prefix)
    async with _admin(settings) as admin:
        related = await _related(admin, names, topology)
        members = await _members(admin, names.group(topology.group)) if topology.group in related else []
        _refuse_beside_earlier(names.group(topology.group), members)
        if members or not related - {topology.group}:
            return  # who runs in it adopted before it joined
        for name in sorted(related - {topology.group}):
            await _refuse_if_running(admin, names, topology, name)
    consumer = clients.standalone_consumer(settings)
    await consumer.start()
    try:
        readers = _readers(topology, settings.partitions)
        groups = [
            CommittedGroup(name, await _committed(consumer, names, name, readers))
            for name in related | {topology.group}
        ]
        own = next(g for g in groups if g.name == topology.group)
        # A group that has committed nothing here has decided nothing here; it may be of another deployment.
        others = [g for g in groups if g is not own and g.committed and not outdated(g, own, readers)]
        if not others:
            return
        offsets = await _goes_on_at(consumer, names, own, others, readers, lost)
    finally:
        await consumer.stop()
    ahead = {tp: offset for tp, offset in offsets.items() if offset > own.committed.get(tp, -1)}
    if ahead:
        await _commit(settings, names, topology.group, ahead)
        log.info("adopted from=%s partitions=%d", [g.name for g in others], len(ahead))


def _readers(topology: Topology, partitions: int) -> dict[TopicPartition, frozenset[str]]:
    """The services that read each partition."""
    return {
        TopicPartition(topic, p): frozenset(s.name for s in topology.services if any(t.name == topic for t in s.topics))
        for topic in topology.consumed
        for p in range(partitions)
    }


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap_servers, request_timeout_ms=clients.REQUEST_TIMEOUT_MS
    )
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _related(admin: AIOKafkaAdminClient, names: KafkaNames, topology: Topology) -> set[str]:
    """The groups that, by their names, share a service with the plan; its own among them if it exists."""
    services = {s.name for s in topology.services}
    groups = [
        names.logical(group)
        for group, protocol in await admin.list_consumer_groups()
        if group.startswith(names.prefix) and protocol in {"consumer", ""}  # "": nobody has joined it yet
    ]
    return {name for name in groups if not services.isdisjoint(services_of(name))}


async def _describe(admin: AIOKafkaAdminClient, group: str) -> tuple[str, list[Any]]:
    """State and members of a group."""
    (response,) = await admin.describe_consumer_groups([group])  # aiokafka misreads an answer about several
    ((code, _name, state, _type, _protocol, members),) = response.groups
    if code:
        raise for_code(code)(f"describing group {group}")
    return state, members


async def _members(admin: AIOKafkaAdminClient, group: str) -> list[Any]:
    """The members of a group, with what they say of themselves, which is told between rebalances only."""
    state, members = await _describe(admin, group)
    while state in {"PreparingRebalance", "CompletingRebalance"}:
        await asyncio.sleep(_POLL_S)
        state, members = await _describe(admin, group)
    return members


def _refuse_beside_earlier(group: str, members: Collection[Any]) -> None:
    """Raises `CompositionInUse` if a member is of a version that drops from rows what it does not know.

    It would write back the row of an order without the payments that this version has counted in it.
    """
    earlier = [m for m in members if not aiokafka_internals.names_instance(m[3])]
    if earlier:
        raise CompositionInUse(
            f"{len(earlier)} member(s) of group {group} are of an earlier version, which would lose payments and "
            "check-ins that this version has counted: stop them first (one that was killed is forgotten after its "
            "SESSION_TIMEOUT_S)"
        )


async def _refuse_if_running(admin: AIOKafkaAdminClient, names: KafkaNames, topology: Topology, name: str) -> None:
    """Raises `CompositionInUse` if the group has members that read what the services they share with the plan read."""
    shared = {s.name: s for s in topology.services if s.name in services_of(name)}
    topics = {names.topic(t.name) for s in shared.values() for t in s.topics}
    members = await _members(admin, names.group(name))
    # With a prefix that starts like ours, another deployment's groups look like ours. Their topics do not.
    running = [m for m in members if not topics.isdisjoint(aiokafka_internals.subscribed_topics(m[3]))]
    if running:
        raise CompositionInUse(
            f"{', '.join(sorted(shared))} runs already, in group {names.group(name)} with {len(running)} member(s): "
            "stop its workers first (one that was killed is forgotten after its SESSION_TIMEOUT_S)"
        )


async def _committed(
    consumer: AIOKafkaConsumer, names: KafkaNames, group: str, tps: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    found = await aiokafka_internals.stable_offsets(consumer, names.group(group), [names.physical(tp) for tp in tps])
    return {names.partition(tp): offset for tp, offset in found.items() if offset is not None}


async def _goes_on_at(
    consumer: AIOKafkaConsumer,
    names: KafkaNames,
    own: CommittedGroup,
    others: list[CommittedGroup],
    readers: Mapping[TopicPartition, Collection[str]],
    lost: LossReporter,
) -> dict[TopicPartition, int]:
    """Where `own` goes on in what it shares with the others, if anybody has begun. Raises `CompositionInUse`."""
    shared = frozenset[str]().union(*(g.services for g in others))
    read = {names.physical(tp): services for tp, services in readers.items() if not shared.isdisjoint(services)}
    starts = await aiokafka_internals.log_starts(consumer, read)
    ends = await aiokafka_internals.log_ends(consumer, read, committed=False)
    cuts: dict[TopicPartition, ResumePoint] = {}
    for physical, services in read.items():
        tp = names.partition(physical)
        # What retention removed is nobody's to decide any more.
        positions = {s: max(furthest(s, tp, [own, *others]), starts[physical]) for s in services}
        cuts[tp] = ResumePoint(own.name, positions, ends[physical])
    await _see_tails(consumer, names, own.name, {tp: cut for tp, cut in cuts.items() if cut.start < cut.end})
    result: dict[TopicPartition, int] = {}
    for tp, cut in cuts.items():
        start, services = starts[names.physical(tp)], readers[tp]
        behind = furthest_behind(services, tp, [own, *others])
        if behind is not None and (behind < start == cut.offset or behind > cut.end):
            result[tp] = behind  # who takes the partition over finds what is gone, and passes over it for good
        elif cut.offset:
            result[tp] = cut.offset
            if behind is not None and behind < start:
                lost.report(*tp, behind, start, LossPath.INPUT, LossCause.REMOVED)
    return result


async def _see_tails(
    consumer: AIOKafkaConsumer, names: KafkaNames, own: str, cuts: Mapping[TopicPartition, ResumePoint]
) -> None:
    """Shows each cut what lies between its start and its end. Raises `CompositionInUse`."""
    todo = {names.physical(tp): cut for tp, cut in cuts.items()}
    while todo:
        stable = await aiokafka_internals.log_ends(consumer, todo, committed=True)
        if all(stable[tp] >= cut.end for tp, cut in todo.items()):
            break
        await asyncio.sleep(_POLL_S)  # until the transactions are over that were open when the ends were asked for
    consumer.assign(list(todo))
    for tp, cut in todo.items():
        consumer.seek(tp, cut.start)
    while todo:
        for tp, records in (await consumer.getmany(timeout_ms=200, max_records=5000)).items():
            cut = cuts[names.partition(tp)]
            try:
                for record in records:
                    cut.see(record.offset, _mark(record.headers))
                    if record.last_offset is not None:  # nobody can tell whether it was marked
                        cut.see(record.last_offset, None)
            except NoCommonOffset as torn:
                raise CompositionInUse(
                    f"{own} cannot go on where its services stopped, for they stopped at different places: in "
                    f"{tp.topic}[{tp.partition}], which ends at {cut.end}, {torn}, while others have decided it or "
                    f"what follows. Run {torn.first} by itself until its lag is 0, stop it, and start {own} again"
                ) from None
        reached = aiokafka_internals.positions(consumer)  # also behind the markers at the end
        todo = {tp: cut for tp, cut in todo.items() if reached[tp] < cut.end}


def _mark(headers: Iterable[Header]) -> str | None:
    return next(((value or b"").decode(errors="replace") for name, value in headers if name == CONSUMED_BY), None)


async def _commit(settings: Settings, names: KafkaNames, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    consumer = clients.non_member_consumer(settings, names.group(group))
    await consumer.start()
    try:
        physical = {names.physical(tp): offset for tp, offset in offsets.items()}
        consumer.assign(list(physical))
        await consumer.commit(physical)
    except CommitFailedError:
        # The group has members by now. Each of them adopted before it joined, from the same groups that stood still.
        log.info("adopted by another worker meanwhile")
    finally:
        await consumer.stop()
