"""Writes messages of the catalogue to Kafka, in place of external systems."""

import asyncio
import contextlib
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.kafka import clients
from runtime.kafka.topics import ensure_topics, public_topics
from runtime.model.records import Write
from schemas.topics import CATALOGUE, Topic
from schemas.wire import Message

M = TypeVar("M", bound=Message)

_MAX_IN_FLIGHT = 1000
"""Messages sent before their acknowledgements are awaited."""
_CLOSE_S = 2.0
"""Seconds to close the producer: `write` has waited for all it sent, unless it was cancelled or failed."""


class Writer:
    """Producer of a catalogue's messages: acks=all, idempotent, partitioned by murmur2 of the key.

    Entering creates missing topics; it raises `aiokafka.errors.KafkaError` if no broker answers.
    """

    def __init__(self, settings: Settings, catalogue: Iterable[Topic[Any]] = CATALOGUE) -> None:
        self._settings = settings
        self._catalogue = tuple(catalogue)

    async def __aenter__(self) -> Self:
        await ensure_topics(self._settings, public_topics(self._catalogue))
        self._producer = clients.producer(self._settings)
        try:
            await self._producer.start()
        except BaseException:  # cancelled, perhaps
            await self._producer.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._producer.stop()

    async def write(self, topic: Topic[M], values: Iterable[M]) -> None:
        """Writes messages. Returns when every in-sync replica has all of them."""
        await self.write_raw(self._raw(topic, value) for value in values)

    async def write_raw(self, writes: Iterable[Write]) -> None:
        """Writes records of any bytes to the partitions that they name. Returns when every in-sync replica has them."""
        acks: list[asyncio.Future[object]] = []
        for topic, partition, key, value, headers in writes:
            name = self._settings.topic_prefix + topic
            ack = await self._producer.send(name, value, key=key, partition=partition, headers=list(headers))
            acks.append(ack)
            if len(acks) == _MAX_IN_FLIGHT:
                await asyncio.gather(*acks)
                acks.clear()
        await asyncio.gather(*acks)

    def _raw(self, topic: Topic[M], value: M) -> Write:
        key = topic.key(value).encode()
        return Write(topic.name, partition_of(key, self._settings.partitions), key, value.to_json())
