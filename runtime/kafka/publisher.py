"""Writing messages outside of the loop: what clients post, acknowledged once every in-sync replica has it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from runtime.common.deadlines import WaitLimit
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.errors import BatchTooLarge, BrokerUnavailable
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.model.records import Write
from schemas.topics import Topic
from schemas.wire import Message

log = logging.getLogger(__name__)


class Publisher:
    """An idempotent producer that is replaced when it has broken for good.

    No more than `MOST` messages, of no more than about `MOST_BYTES` together, wait for the broker at a time: a broker
    that is slow is told to clients, not hidden in a queue that grows.

    Arguments:
        patience: how long a message waits.
    """

    MOST = 10_000
    MOST_BYTES = 32 * 1024 * 1024

    def __init__(self, settings: Settings, patience: WaitLimit) -> None:
        self._settings = settings
        self._names = KafkaNames(settings.topic_prefix)
        self._producer: AIOKafkaProducer | None = None
        self._broken = False
        self._replacing = asyncio.Lock()
        self._patience = patience
        self._waiting = 0
        self._waiting_bytes = 0

    async def start(self) -> None:
        producer = clients.producer(self._settings)
        await aiokafka_internals.start_producer(producer)
        self._producer, self._broken = producer, False

    async def stop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await aiokafka_internals.stop_producer(producer)

    async def publish(self, topic: Topic[Any], value: Message) -> None:
        """Returns when the message is acknowledged. Raises `BrokerUnavailable`."""
        if self._waiting >= self.MOST or self._waiting_bytes >= self.MOST_BYTES:
            raise BrokerUnavailable(f"topic {topic.name}: {self._waiting} messages wait for the broker already")
        key, raw = topic.key(value).encode(), value.to_json()
        self._waiting += 1
        self._waiting_bytes += len(raw)
        try:
            async with self._in_time(f"topic {topic.name}") as producer:
                partition = partition_of(key, self._settings.partitions)
                await (await producer.send(self._names.topic(topic.name), raw, key=key, partition=partition))
        finally:
            self._waiting -= 1
            self._waiting_bytes -= len(raw)

    async def publish_all(self, writes: Sequence[Write]) -> None:
        """Returns when all are acknowledged, in this order within each partition, which goes by the key.

        What goes to a partition is one batch: all of it is written, or nothing. Raises `ValueError` if it is too much
        for that, `BatchTooLarge` if it is so for its topic, and `BrokerUnavailable`; batches of other partitions may
        be written then.
        """
        async with self._in_time(f"{len(writes)} messages") as producer:
            await self._write_batches(producer, writes)

    async def _write_batches(self, producer: AIOKafkaProducer, writes: Sequence[Write]) -> None:
        batches: dict[tuple[str, int], Any] = {}
        for topic, _, key, value, headers in writes:
            tp = topic, partition_of(key or b"", self._settings.partitions)
            batch = batches.get(tp) or batches.setdefault(tp, producer.create_batch())
            if batch.append(timestamp=None, key=key, value=value, headers=list(headers)) is None:
                raise ValueError(f"topic {topic}: more than a batch")
        acks = [
            await producer.send_batch(batch, self._names.topic(topic), partition=partition)
            for (topic, partition), batch in batches.items()
        ]
        # All of them: what is still on its way when this returns might be written behind what is sent next.
        for (topic, partition), ack in zip(batches, await asyncio.gather(*acks, return_exceptions=True), strict=True):
            if isinstance(ack, MessageSizeTooLargeError):
                raise BatchTooLarge(topic, partition)
            if isinstance(ack, BaseException):
                raise ack

    @asynccontextmanager
    async def _in_time(self, what: str) -> AsyncIterator[AIOKafkaProducer]:
        """A producer that works, to have `what` acknowledged within the block. Raises `BrokerUnavailable`."""
        try:
            async with self._patience.limit():
                producer = await self._working()
                try:
                    yield producer
                except (KafkaError, BatchTooLarge):
                    # What was refused leaves a gap in the sequence of its partition, which refuses all that follow.
                    if self._producer is producer:
                        self._broken = True
                    raise
        except (KafkaError, TimeoutError) as error:
            raise BrokerUnavailable(f"{what}: {error!r}") from error

    @property
    def _useless(self) -> bool:
        return self._producer is None or self._broken or aiokafka_internals.is_dead(self._producer)

    async def _working(self) -> AIOKafkaProducer:
        """The producer, or a new one if it is beyond repair: after a fatal error it would refuse everything."""
        if self._useless:
            async with self._replacing:
                if self._useless:
                    log.warning("producer is replaced")
                    await self.stop()
                    await self.start()
        assert self._producer is not None
        return self._producer
