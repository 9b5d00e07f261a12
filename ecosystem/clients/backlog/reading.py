"""Reads the backlog of all services from Kafka."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient

from ecosystem.clients.backlog.heads import read_heads
from ecosystem.clients.backlog.lags import Backlog, lags, positions
from ecosystem.clients.backlog.sinks import StoredSinks, read_sinks, sink_positions
from ecosystem.clients.reader import partitions_of
from runtime.common.clock import utc_now
from runtime.common.settings import Settings
from runtime.group.composition import CommittedGroup
from runtime.hosting import ServiceDefinition
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.model.log_ids import CommittedOffset
from runtime.model.progress import services_of
from runtime.model.topology import Topology
from runtime.sink.consumer import SINK

_CONCURRENT = 16
"""Groups that are asked for at the same time: a cluster may have hundreds."""
_PARTITION_BYTES = 256 * 1024
"""Bytes that are fetched of each partition: mostly one record of them is needed."""


async def read_backlog(settings: Settings, definitions: Sequence[ServiceDefinition]) -> Backlog:
    """Reads the backlog of the services, and of other groups that read topics of the catalogue. Raises `KafkaError`.

    Arguments:
        settings: broker and topic prefix.
        definitions: all services.
    """
    names, topology = KafkaNames(settings.topic_prefix), Topology(tuple(d.service for d in definitions))
    sinks = {d.service.name: d.sink.topics for d in definitions if d.sink is not None}
    consumer = clients.standalone_consumer(settings, _PARTITION_BYTES, skip_removed=True)
    try:
        await consumer.start()
        # Before the ends: what is committed in between must not look like a position beyond the end.
        async with clients.admin(settings) as admin:
            groups = await committed_groups(admin, names, sinks)
        stored = await read_sinks(definitions)
        return await _backlog(settings, consumer, names, topology, groups, sinks, stored)
    finally:
        await consumer.stop()


async def committed_groups(
    admin: AIOKafkaAdminClient, names: KafkaNames, sinks: Collection[str]
) -> list[CommittedGroup]:
    """The consumer groups of the deployment with what they have committed, without those of sinks."""
    limit, of_sinks = asyncio.Semaphore(_CONCURRENT), {name + SINK for name in sinks}

    async def committed(name: str) -> CommittedGroup:
        async with limit:
            found = await admin.list_consumer_group_offsets(names.group(name))
        return CommittedGroup(
            name,
            {
                names.partition(tp): CommittedOffset(commit.offset, commit.metadata or "")
                for tp, commit in found.items()
                if commit.offset >= 0 and tp.topic.startswith(names.prefix)
            },
        )

    found = [
        names.logical(group)
        for group, protocol in await admin.list_consumer_groups()
        if group.startswith(names.prefix) and protocol in {"consumer", ""}  # "": no member has joined it yet
    ]
    return list(await asyncio.gather(*(committed(name) for name in sorted(found) if name not in of_sinks)))


async def _backlog(
    settings: Settings,
    consumer: AIOKafkaConsumer,
    names: KafkaNames,
    topology: Topology,
    groups: list[CommittedGroup],
    sinks: Mapping[str, Sequence[str]],
    stored: StoredSinks,
) -> Backlog:
    topics = {t.name for t in topology.topics}.union(*sinks.values())
    physical = await partitions_of(settings, topics)
    ids = await aiokafka_internals.topic_ids(consumer, {tp.topic for tp in physical})
    starts = await aiokafka_internals.log_starts(consumer, physical)
    last = await aiokafka_internals.log_ends(consumer, physical, committed=True)
    ends = {names.partition(tp): end for tp, end in last.items()}
    logs = (
        {names.logical(topic): id_ for topic, id_ in ids.items()},
        {names.partition(tp): start for tp, start in starts.items()},
        ends,
    )
    found = positions(topology, groups, *logs) | sink_positions(stored, sinks, *logs)
    behind = {reader: p.offset for reader, p in found.items() if p.offset < ends[reader.tp]}
    heads = await read_heads(consumer, names, behind, ends) if behind else {}
    started = {reader.service for reader in found} | {s for group in groups for s in services_of(group.name)}
    never = tuple(s.name for s in topology.services if s.inputs and s.name not in started)
    now_ms = round(utc_now().timestamp() * 1000)
    return Backlog(lags(found, heads, ends, now_ms), never + stored.never_started, stored.unknown)
