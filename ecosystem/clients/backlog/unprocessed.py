"""Looks again and again whether services have processed everything. Cheaper than reading the whole backlog."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from ecosystem.clients.backlog.heads import read_heads
from ecosystem.clients.backlog.lags import Reader, positions
from ecosystem.clients.backlog.reading import committed_groups
from ecosystem.clients.reader import partitions_of
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.model.topology import Topology

_PARTITION_BYTES = 256 * 1024
"""Bytes that are fetched of each partition: mostly a few records are needed."""


@dataclass(frozen=True, slots=True)
class Unprocessed:
    """What services have not processed.

    Arguments:
        positions: of readers that are not at the last stable offset.
        open: topics with an open transaction: records behind it are not visible yet.
        started: the services that a group reads for, or has read for.
    """

    positions: Mapping[Reader, int] = field(default_factory=dict)
    open: Sequence[str] = ()
    started: frozenset[str] = frozenset()

    @property
    def services(self) -> Sequence[str]:
        """The services that are behind."""
        return sorted({reader.service for reader in self.positions})


class UnprocessedReader:
    """Reads what the services have not processed. Sinks and groups of other programs do not count.

    Arguments:
        settings: broker and topic prefix.
        definitions: all services.
    """

    def __init__(self, settings: Settings, definitions: Sequence[ServiceDefinition]) -> None:
        self._settings = settings
        self._names = KafkaNames(settings.topic_prefix)
        self._topology = Topology(tuple(d.service for d in definitions))
        self._sinks = [d.service.name for d in definitions if d.sink is not None]
        self._services = {service.name for service in self._topology.services}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._consumer = clients.standalone_consumer(self._settings, _PARTITION_BYTES, skip_removed=True)
            stack.push_async_callback(self._consumer.stop)
            await self._consumer.start()
            self._admin = await stack.enter_async_context(clients.admin(self._settings))
            self._partitions = await partitions_of(self._settings, {t.name: t for t in self._topology.topics})
            topics = {tp.topic for tp in self._partitions}
            ids = await aiokafka_internals.topic_ids(self._consumer, topics)
            self._ids = {self._names.logical(topic): id_ for topic, id_ in ids.items()}
            starts = await aiokafka_internals.log_starts(self._consumer, self._partitions)
            self._starts = {self._names.partition(tp): start for tp, start in starts.items()}
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def readers(self, topic: str) -> frozenset[str]:
        """The services that read a topic; of one that nobody reads, all."""
        return frozenset(self._topology.readers.get(topic, self._services))

    async def read(self) -> Unprocessed:
        """Reads what is unprocessed. If nothing is, then all that was written before this call is processed."""
        # Groups before ends: then a position that has reached the end had nothing before it at that time.
        groups = await committed_groups(self._admin, self._names, self._sinks)
        stable = await aiokafka_internals.log_ends(self._consumer, self._partitions, committed=True)
        last = await aiokafka_internals.log_ends(self._consumer, self._partitions, committed=False)
        ends = {self._names.partition(tp): end for tp, end in stable.items()}
        found = positions(self._topology, groups, self._ids, self._starts, ends)
        own = {reader: p.offset for reader, p in found.items() if reader.service in self._services}
        behind = {reader: offset for reader, offset in own.items() if offset < ends[reader.tp]}
        opened = sorted({self._names.logical(tp.topic) for tp, end in last.items() if stable[tp] < end})
        if behind and not opened:
            # Workers commit once a second past what they have processed in the batch that wrote it.
            heads = await read_heads(self._consumer, self._names, behind, ends)
            behind = {r: heads[r].offset if r in heads else offset for r, offset in behind.items()}
            behind = {reader: offset for reader, offset in behind.items() if offset < ends[reader.tp]}
        return Unprocessed(behind, opened, frozenset(reader.service for reader in own))
