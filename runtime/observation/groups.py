"""Reads the consumer groups of a deployment: their workers, what they have committed, and their backlog."""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient

from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.model.end_samples import EndSamples
from runtime.model.progress import services_of
from runtime.model.records import TopicPartition

_CONCURRENT = 8
"""Groups that are asked for at the same time."""
_MOST_GROUPS = 200
"""Groups that are looked at: more are no deployment of ours."""


class ObservedMember(NamedTuple):
    """A worker in a consumer group.

    Arguments:
        url: at which other workers reach it; empty for the member of another program.
        services: by name.
    """

    url: str
    services: tuple[str, ...]


class TopicBacklog(NamedTuple):
    """What a group has not processed of a topic.

    Arguments:
        group: its name.
        topic: its name.
        records: offsets up to the last stable offset; those of transaction markers are counted.
        seconds: for how long the oldest of them has waited, at least.
        longer: whether it may have waited longer: it was there before the first measurement.
    """

    group: str
    topic: str
    records: int
    seconds: float
    longer: bool


@dataclass(frozen=True, slots=True)
class ObservedGroup:
    """A consumer group with its members and committed offsets."""

    name: str
    state: str
    members: tuple[ObservedMember, ...]
    committed: Mapping[TopicPartition, int]


class Ends:
    """Last stable offsets of partitions over time."""

    def __init__(self) -> None:
        self._ends: dict[TopicPartition, EndSamples] = {}

    def add(self, now_s: float, ends: Mapping[TopicPartition, int]) -> None:
        """Takes a measurement. Partitions that it does not have are forgotten."""
        self._ends = {tp: self._ends.get(tp) or EndSamples() for tp in ends}
        for tp, end in ends.items():
            self._ends[tp].add(now_s, end)

    def end(self, tp: TopicPartition) -> int:
        """The newest measurement."""
        return self._ends[tp].end

    def waited(self, tp: TopicPartition, offset: int, now_s: float) -> tuple[float, bool]:
        """For how many seconds the record at an offset is known to wait, and whether it may be longer."""
        return self._ends[tp].waited(offset, now_s)


def backlog(groups: Iterable[ObservedGroup], ends: Ends, now_s: float) -> list[TopicBacklog]:
    """The backlog of each group in each topic, the longest first."""
    result = []
    for group in groups:
        topics: dict[str, list[tuple[int, float, bool]]] = {}
        for tp, offset in group.committed.items():
            waited, longer = ends.waited(tp, offset, now_s)
            topics.setdefault(tp.topic, []).append((max(0, ends.end(tp) - offset), waited, longer))
        for topic, found in topics.items():
            oldest = max(found, key=lambda entry: entry[1])
            result.append(TopicBacklog(group.name, topic, sum(n for n, _, _ in found), oldest[1], oldest[2]))
    return sorted(result, key=lambda b: (-b.seconds, b.group, b.topic))


class GroupReader:
    """Asks the broker about the groups of a deployment, with connections of its own.

    Arguments:
        settings: broker and topic prefix.
    """

    def __init__(self, settings: Settings) -> None:
        self.ends = Ends()
        self._settings = settings
        self._names = KafkaNames(settings.topic_prefix)
        self._admin: AIOKafkaAdminClient | None = None
        self._consumer: AIOKafkaConsumer | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; `read` opens them again."""
        admin, consumer = self._admin, self._consumer
        self._admin = self._consumer = None
        if consumer is not None:
            await consumer.stop()
        if admin is not None:
            await admin.close()

    async def read(self) -> list[ObservedGroup]:
        """Reads all groups, and adds the ends of the topics that they read to `ends`. Raises `KafkaError`."""
        admin, consumer = await self._connected()
        limit = asyncio.Semaphore(_CONCURRENT)
        found = [
            self._names.logical(group)
            for group, protocol in await admin.list_consumer_groups()
            if group.startswith(self._names.prefix) and protocol in {"consumer", ""}
        ]

        async def read(name: str) -> ObservedGroup:
            async with limit:
                return await self._group(admin, name)

        groups = await asyncio.gather(*(read(name) for name in sorted(found)[:_MOST_GROUPS]))
        physical = [self._names.physical(tp) for tp in {tp for group in groups for tp in group.committed}]
        measured = await aiokafka_internals.log_ends(consumer, physical, committed=True) if physical else {}
        self.ends.add(time.monotonic(), {self._names.partition(tp): end for tp, end in measured.items()})
        return list(groups)

    def backlog(self, groups: Collection[ObservedGroup]) -> list[TopicBacklog]:
        """The backlog, as of the last `read`."""
        return backlog(groups, self.ends, time.monotonic())

    async def _group(self, admin: AIOKafkaAdminClient, name: str) -> ObservedGroup:
        offsets = await admin.list_consumer_group_offsets(self._names.group(name))
        committed = {
            self._names.partition(tp): commit.offset
            for tp, commit in offsets.items()
            if commit.offset >= 0 and tp.topic.startswith(self._names.prefix)
        }
        state, members = await aiokafka_internals.describe_group(admin, self._names.group(name))
        return ObservedGroup(name, str(state), tuple(_member(m, name) for m in members), committed)

    async def _connected(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        if self._admin is None or self._consumer is None:
            await self.close()
            self._admin = clients.new_admin(self._settings)
            self._consumer = clients.standalone_consumer(self._settings)
            try:
                await self._admin.start()
                await self._consumer.start()
            except BaseException:  # cancelled, perhaps
                await self.close()
                raise
        return self._admin, self._consumer


def _member(member: Any, group: str) -> ObservedMember:
    """A member, from its place in a DescribeGroups response: [3] is its metadata, empty during a rebalance."""
    try:
        _, info = aiokafka_internals.member_metadata(member[3])
    except (ValueError, TypeError, AttributeError):
        info = {}
    services = str(info.get("services") or "")
    return ObservedMember(str(info.get("url") or ""), tuple(sorted(services_of(services or group))))
