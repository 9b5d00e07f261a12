"""Reads committed messages of all partitions of topics, without a consumer group."""

import asyncio
import heapq
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from statistics import mode
from types import TracebackType
from typing import Self

from aiokafka import TopicPartition

from runtime.common.settings import Settings
from runtime.kafka import clients
from runtime.kafka.clients import KafkaNames
from runtime.kafka.topics import public_topics
from runtime.model.records import Record

_POLL_MS = 500
_PARTITION_BYTES = 1024 * 1024
"""Bytes that are prefetched of each partition: a command reads all partitions of many topics."""
_MAX_RECORDS = 5000
"""Records of one poll. It bounds memory: compressed batches can hold many more."""


class Reader:
    """Reads those topics (names without prefix) that exist; `found` names them."""

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        self.found: list[str] = []
        self._names = KafkaNames(settings.topic_prefix)
        self._topics = topics
        self._settings = settings

    async def __aenter__(self) -> Self:
        self._consumer = clients.standalone_consumer(self._settings, _PARTITION_BYTES, skip_removed=True)
        try:
            await self._consumer.start()
            self._partitions = await partitions_of(self._settings, self._topics)
        except BaseException:  # cancelled, perhaps
            await self._consumer.stop()
            raise
        names = {tp.topic for tp in self._partitions}
        self.found = [topic for topic in self._topics if self._names.topic(topic) in names]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._consumer.stop()

    async def records(self, from_beginning: bool, follow: bool, stop: asyncio.Event) -> AsyncIterator[Record]:
        """Yields records, in order within each partition. A record that cannot be decoded has a reason in `unreadable`.

        Arguments:
            from_beginning: whether to start with the oldest record, instead of the next new one.
            follow: whether to wait for new records; otherwise ends at the end offsets of the start.
            stop: ends the iteration.
        """
        partitions = self._partitions
        ends = await self._consumer.end_offsets(partitions)
        starts = await self._consumer.beginning_offsets(partitions) if from_beginning else ends
        # No await between assign and seek: a partition without a position would soon get the end as its position.
        self._consumer.assign(partitions)
        for tp, start in starts.items():
            self._consumer.seek(tp, start)
        while not stop.is_set():
            batch = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)
            for r in heapq.merge(*batch.values(), key=lambda r: r.timestamp):
                topic = self._names.logical(r.topic)
                yield Record(topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers, r.unreadable)
            if not follow and await self._has_reached(ends):
                return

    async def _has_reached(self, ends: dict[TopicPartition, int]) -> bool:
        positions = [(await self._consumer.position(tp), end) for tp, end in ends.items()]
        return all(position >= end for position, end in positions)


async def read_keys(settings: Settings, topic: str) -> set[bytes]:
    """Returns all keys that a topic (name without prefix) has now."""
    async with Reader(settings, [topic]) as reader:
        records = reader.records(from_beginning=True, follow=False, stop=asyncio.Event())
        return {record.key async for record in records if record.key is not None}


async def partition_count(settings: Settings) -> int:
    """Returns the number of partitions of the deployment, by which its workers place keys.

    It is the number of most topics: an operator may have added partitions to one of them. `settings.partitions` if no
    topic exists yet.
    """
    counts = Counter(tp.topic for tp in await partitions_of(settings, public_topics()))
    return mode(sorted(counts.values())) if counts else settings.partitions


async def partitions_of(settings: Settings, topics: Iterable[str]) -> list[TopicPartition]:
    """Returns the partitions, under the broker's names, of those topics (names without prefix) that exist."""
    names = KafkaNames(settings.topic_prefix)
    async with clients.admin(settings) as admin:
        existing = set(await admin.list_topics())
        wanted = [name for topic in topics if (name := names.topic(topic)) in existing]
        described = await admin.describe_topics(wanted) if wanted else []
    return [TopicPartition(t["topic"], p["partition"]) for t in described for p in t["partitions"]]
