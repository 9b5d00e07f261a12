"""Offsets and records of logs, for restores and standby replicas; read by a consumer without a group."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer

from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.model.log_ids import CommittedOffset, LogIds
from runtime.model.records import Offsets, TopicPartition


class KafkaLogReader:
    """Implements `runtime.state.restore.LogReader` with aiokafka. Connects at the first call."""

    def __init__(
        self, settings: Settings, group: str, max_rows: int = 5000, partition_bytes: int = 4 * 1024 * 1024
    ) -> None:
        """Prefetches up to `partition_bytes` of each partition; returns up to `max_rows` a poll."""
        self._max_rows = max_rows
        self._partition_bytes = partition_bytes
        self._settings = settings
        self._names = KafkaNames(settings.topic_prefix)
        self._group = self._names.group(group)
        self._consumer: AIOKafkaConsumer | None = None

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = clients.standalone_consumer(self._settings, self._partition_bytes)
            await consumer.start()
            self._consumer = consumer
        return self._consumer

    async def stop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def stable_commits(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, CommittedOffset | None]:
        consumer = await self._connected()
        tps = [self._names.physical(tp) for tp in partitions]
        commits = await aiokafka_internals.stable_commits(consumer, self._group, tps)
        return {self._names.partition(tp): commit for tp, commit in commits.items()}

    async def log_ids(self, topics: Collection[str]) -> LogIds:
        consumer = await self._connected()
        ids = await aiokafka_internals.topic_ids(consumer, [self._names.topic(topic) for topic in topics])
        return {self._names.logical(topic): id_ for topic, id_ in ids.items()}

    async def log_starts(self, partitions: Collection[TopicPartition]) -> Offsets:
        consumer = await self._connected()
        starts = await aiokafka_internals.log_starts(consumer, [self._names.physical(tp) for tp in partitions])
        return {self._names.partition(tp): start for tp, start in starts.items()}

    async def log_ends(self, partitions: Collection[TopicPartition], *, committed: bool) -> Offsets:
        consumer = await self._connected()
        tps = [self._names.physical(tp) for tp in partitions]
        ends = await aiokafka_internals.log_ends(consumer, tps, committed=committed)
        return {self._names.partition(tp): end for tp, end in ends.items()}

    async def last_stable_offsets(self, partitions: Collection[TopicPartition], timeout_s: float) -> Offsets:
        """The last stable offset of each partition whose leader answers within `timeout_s`."""
        consumer = await self._connected()
        ends = await aiokafka_internals.last_stable_offsets(
            consumer, [self._names.physical(tp) for tp in partitions], timeout_s
        )
        return {self._names.partition(tp): end for tp, end in ends.items()}

    async def coordinator_answers(self, timeout_s: float) -> bool:
        """Whether the group's coordinator answers within `timeout_s`."""
        return await aiokafka_internals.coordinator_answers(await self._connected(), self._group, timeout_s)

    @asynccontextmanager
    async def reading(self, positions: Offsets) -> AsyncIterator["_KafkaReading"]:
        consumer = await self._connected()
        consumer.assign([self._names.physical(tp) for tp in positions])
        try:
            for tp, offset in positions.items():
                consumer.seek(self._names.physical(tp), offset)
            yield _KafkaReading(consumer, self._names, self._max_rows)
        finally:
            consumer.unsubscribe()  # otherwise it would continue to fetch


class _KafkaReading:
    """Implements `runtime.state.restore.Reading`."""

    def __init__(self, consumer: AIOKafkaConsumer, names: KafkaNames, max_rows: int) -> None:
        self._consumer = consumer
        self._names = names
        self._max_rows = max_rows

    async def rows(self) -> Mapping[TopicPartition, Sequence[Any]]:
        fetched = await self._consumer.getmany(timeout_ms=200, max_records=self._max_rows)
        return {self._names.partition(tp): rows for tp, rows in fetched.items()}

    def positions(self) -> Offsets:
        return {
            self._names.partition(tp): offset for tp, offset in aiokafka_internals.positions(self._consumer).items()
        }
