"""Publishes messages outside of the processing loop: posted orders, outbox rows, dead letters of lost records."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from runtime.common.deadlines import SharedTimeout
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.errors import BatchTooLarge, BrokerUnavailable
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.model.records import Write
from runtime.model.traces import current_headers
from schemas.topics import Topic
from schemas.wire import Message

log = logging.getLogger(__name__)


class KafkaPublisher:
    """An idempotent producer (acks=all) that is replaced after a fatal error.

    The queue of single messages is bounded: when the broker is slow, clients get an error instead of a growing delay.

    Arguments:
        settings: of the worker.
        wait_limit: bounds the wait for an acknowledgement.
    """

    MAX_PENDING = 10_000
    """Messages that wait for an acknowledgement at a time."""
    MAX_PENDING_BYTES = 32 * 1024 * 1024
    """Bytes of their values."""

    def __init__(self, settings: Settings, produce_timeout: SharedTimeout) -> None:
        self._settings = settings
        self._names = KafkaNames(settings.topic_prefix)
        self._producer: AIOKafkaProducer | None = None
        self._failed = False
        self._replacing = asyncio.Lock()
        self._produce_timeout = produce_timeout
        self._pending = 0
        self._pending_bytes = 0

    async def start(self) -> None:
        producer = clients.producer(self._settings)
        await aiokafka_internals.start_producer(producer)
        self._producer, self._failed = producer, False

    async def stop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await aiokafka_internals.stop_producer(producer)

    async def publish(self, topic: Topic[Any], value: Message) -> None:
        """Returns when every in-sync replica has the message. Raises `BrokerUnavailable`."""
        if self._pending >= self.MAX_PENDING or self._pending_bytes >= self.MAX_PENDING_BYTES:
            raise BrokerUnavailable(
                f"topic {topic.name}: {self._pending} messages already wait for the broker; retry later"
            )
        key, raw = topic.key(value).encode(), value.to_json()
        self._pending += 1
        self._pending_bytes += len(raw)
        try:
            async with self._producing(f"topic {topic.name}") as producer:
                partition = partition_of(key, self._settings.partitions)
                sending = producer.send(
                    self._names.topic(topic.name), raw, key=key, partition=partition, headers=current_headers()
                )
                await (await sending)
        finally:
            self._pending -= 1
            self._pending_bytes -= len(raw)

    async def publish_all(self, writes: Sequence[Write]) -> None:
        """Returns when all are acknowledged, in this order within each partition. The key determines the partition.

        The writes of a partition are one batch, written whole or not at all. After an error, batches of other
        partitions may have been written.

        Raises:
            ValueError: the writes of a partition exceed a batch.
            BatchTooLarge: a topic does not accept a batch of this size.
            BrokerUnavailable: there is no acknowledgement within the wait limit.
        """
        async with self._producing(f"{len(writes)} messages") as producer:
            await self._write_batches(producer, writes)

    async def _write_batches(self, producer: AIOKafkaProducer, writes: Sequence[Write]) -> None:
        batches: dict[tuple[str, int], Any] = {}
        for topic, _, key, value, headers in writes:
            tp = topic, partition_of(key or b"", self._settings.partitions)
            batch = batches.get(tp) or batches.setdefault(tp, producer.create_batch())
            if batch.append(timestamp=None, key=key, value=value, headers=list(headers)) is None:
                raise ValueError(f"topic {topic}: the writes of a partition exceed a batch; publish fewer at a time")
        acks = [
            await producer.send_batch(batch, self._names.topic(topic), partition=partition)
            for (topic, partition), batch in batches.items()
        ]
        # Waits for all, even after an error: a batch still in flight could be written behind the next call's.
        for (topic, partition), ack in zip(batches, await asyncio.gather(*acks, return_exceptions=True), strict=True):
            if isinstance(ack, MessageSizeTooLargeError):
                raise BatchTooLarge(topic, partition)
            if isinstance(ack, BaseException):
                raise ack

    @asynccontextmanager
    async def _producing(self, what: str) -> AsyncIterator[AIOKafkaProducer]:
        """Yields a usable producer; bounds the block by the wait limit. Raises `BrokerUnavailable` about `what`."""
        try:
            async with self._produce_timeout.limit():
                producer = await self._usable_producer()
                try:
                    yield producer
                except (KafkaError, BatchTooLarge):
                    # A rejected batch leaves a gap in its partition's sequence numbers: all later ones fail.
                    if self._producer is producer:
                        self._failed = True
                    raise
        except (KafkaError, TimeoutError) as error:
            raise BrokerUnavailable(f"{what}: {error!r}") from error

    @property
    def _is_unusable(self) -> bool:
        return self._producer is None or self._failed or aiokafka_internals.is_dead(self._producer)

    async def _usable_producer(self) -> AIOKafkaProducer:
        """The producer, replaced if it has failed: after a fatal error it would reject every message."""
        if self._is_unusable:
            async with self._replacing:
                if self._is_unusable:
                    log.warning("publisher replaces its producer")
                    await self.stop()
                    await self.start()
        assert self._producer is not None
        return self._producer
