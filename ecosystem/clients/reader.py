"""Reading topics without being a member of any group: all partitions, committed messages only."""

import asyncio
import heapq
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from statistics import mode
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from runtime.common.settings import Settings
from runtime.kafka.clients import KafkaNames
from runtime.kafka.topics import public_topics
from runtime.model.records import Record

_POLL_MS = 500
_MOST = 5000
"""Records had at a time: of those that wait unpacked there may be many more, as batches are compressed."""


class Reader:
    """Of the topics (logical names) that exist; `found` says which those are."""

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        self.found: list[str] = []
        self._names = KafkaNames(settings.topic_prefix)
        self._topics = topics
        self._settings = settings

    async def __aenter__(self) -> Self:
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka_bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # where retention overtakes it: the default is to pass over all there is
            isolation_level="read_committed",
        )
        await self._consumer.start()
        self._partitions = await partitions_of(self._settings, self._topics)
        names = {tp.topic for tp in self._partitions}
        self.found = [topic for topic in self._topics if self._names.topic(topic) in names]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._consumer.stop()

    async def records(self, from_beginning: bool, follow: bool, stop: asyncio.Event) -> AsyncIterator[Record]:
        """What is there or comes, in order within each partition; ends with `stop`, or where it ended at the start.

        A record that cannot be decoded has a reason in `unreadable`.
        """
        partitions = self._partitions
        ends = await self._consumer.end_offsets(partitions)
        starts = await self._consumer.beginning_offsets(partitions) if from_beginning else ends
        # Nothing is awaited in between: what is assigned without a position is soon given one, at the end.
        self._consumer.assign(partitions)
        for tp, start in starts.items():
            self._consumer.seek(tp, start)
        while not stop.is_set():
            batch = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_MOST)
            for r in heapq.merge(*batch.values(), key=lambda r: r.timestamp):
                topic = self._names.logical(r.topic)
                yield Record(topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers, r.unreadable)
            if not follow and await self._at(ends):
                return

    async def _at(self, ends: dict[TopicPartition, int]) -> bool:
        positions = [(await self._consumer.position(tp), end) for tp, end in ends.items()]
        return all(position >= end for position, end in positions)


async def keys(settings: Settings, topic: str) -> set[bytes]:
    """All keys that a topic (logical name) has now."""
    async with Reader(settings, [topic]) as reader:
        records = reader.records(from_beginning=True, follow=False, stop=asyncio.Event())
        return {record.key async for record in records if record.key is not None}


async def partition_count(settings: Settings) -> int:
    """How many partitions the topics of the deployment were made with, by which its workers look for keys.

    That of most topics: an operator may have given one of them more since. `settings.partitions` if there is none yet.
    """
    counts = Counter(tp.topic for tp in await partitions_of(settings, public_topics()))
    return mode(sorted(counts.values())) if counts else settings.partitions


async def partitions_of(settings: Settings, topics: Iterable[str]) -> list[TopicPartition]:
    """The partitions, as the broker names them, of those of the topics (logical names) that exist."""
    names = KafkaNames(settings.topic_prefix)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        there = set(await admin.list_topics())
        wanted = [name for topic in topics if (name := names.topic(topic)) in there]
        described = await admin.describe_topics(wanted) if wanted else []
    finally:
        await admin.close()
    return [TopicPartition(t["topic"], p["partition"]) for t in described for p in t["partitions"]]
