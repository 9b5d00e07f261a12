"""The consumer of a sink: a member of a group of the sink's own, which commits no offsets."""

import logging
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from runtime.common.backoff import Backoff, retry
from runtime.common.settings import Settings
from runtime.errors import PositionOutOfRange
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.model.records import Offsets, TopicPartition
from runtime.sink.placement import LogState
from runtime.sink.ports import Polled

log = logging.getLogger(__name__)

SINK = "-sink"
"""Suffix of the group of a sink, after the name of its service. No service has such a name."""

_REJOIN_S = 1.0
"""Seconds between attempts to join the group again while the broker does not answer."""


class KafkaSinkConsumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """Implements `runtime.sink.ports.SinkConsumer` with aiokafka.

    Arguments:
        settings: of the worker.
        service: name of the service.
        topics: logical names of the topics.
        suffix: of its group: members of one group share the partitions.
    """

    PARTITION_BYTES = 512 * 1024
    """Bytes that are prefetched of each partition."""
    MAX_RECORDS = 2000
    """Records of a poll."""

    def __init__(self, settings: Settings, service: str, topics: Collection[str], suffix: str = SINK) -> None:
        self.generation = 0
        self._settings = settings
        self._names = KafkaNames(settings.topic_prefix)
        self._group = self._names.group(service + suffix)
        self._topics = [self._names.topic(name) for name in topics]
        self._consumer: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Joins the group."""
        consumer = clients.group_consumer(
            self._settings, self._group, RoundRobinPartitionAssignor, self.PARTITION_BYTES
        )
        try:
            await consumer.start()
        except BaseException:
            await consumer.stop()
            raise
        self._consumer = consumer
        consumer.subscribe(self._topics, listener=self)

    async def stop(self) -> None:
        """Leaves the group."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                await consumer.stop()
            except KafkaError as error:  # that of a fetch task that has ended before
                log.warning("sink consumer stopped with an error group=%s error=%r", self._group, error)

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Called by aiokafka before a rebalance. A batch that is being stored may be committed all the same."""
        self.generation += 1

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Called by aiokafka after a rebalance. Nothing is fetched before the offsets are read."""
        self.generation += 1
        if self._consumer is not None:
            self._consumer.pause(*self._consumer.assignment())

    def assignment(self) -> Collection[TopicPartition]:
        return [self._names.partition(tp) for tp in self._started.assignment()]

    async def logs(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, LogState]:
        consumer = self._started
        physical = [self._names.physical(tp) for tp in partitions]
        ids = await aiokafka_internals.topic_ids(consumer, {tp.topic for tp in physical})
        starts = await aiokafka_internals.log_starts(consumer, physical)
        ends = await aiokafka_internals.log_ends(consumer, physical, committed=True)
        return {self._names.partition(tp): LogState(ids.get(tp.topic, ""), starts[tp], ends[tp]) for tp in physical}

    async def fetch(self, timeout_s: float) -> Polled:
        consumer = self._started
        if aiokafka_internals.fetcher_stopped(consumer):
            await self._replace()
            raise RuntimeError("the consumer had stopped fetching: a new one has joined the group")
        try:
            fetched = await consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=self.MAX_RECORDS)
        except OffsetOutOfRangeError as error:
            raise PositionOutOfRange(str(error)) from None
        except NoOffsetForPartitionError:
            fetched = {}  # a partition was assigned just now
        positions = aiokafka_internals.positions(consumer)
        ends = {tp: consumer.last_stable_offset(tp) for tp in positions}
        return Polled(
            {self._names.partition(tp): records for tp, records in fetched.items()},
            {self._names.partition(tp): position for tp, position in positions.items()},
            {self._names.partition(tp): end for tp, end in ends.items() if end is not None and end >= 0},
        )

    def seek(self, positions: Offsets) -> None:
        consumer = self._started
        physical = {self._names.physical(tp): offset for tp, offset in positions.items()}
        for tp, offset in physical.items():
            consumer.seek(tp, offset)
        consumer.resume(*physical)

    async def _replace(self) -> None:
        """Leaves the group, and joins it with a new consumer: whatever ended the fetch task, records wait."""
        await self.stop()
        self.generation += 1
        await retry(self.start, Backoff(_REJOIN_S), report=lambda error: log.warning("sink waits error=%r", error))

    @property
    def _started(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "not started"
        return self._consumer
