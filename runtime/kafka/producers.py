"""The producers of the two checkpoints: idempotent, and transactional."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.aiokafka_internals import FencedProducer
from runtime.kafka.clients import KafkaNames
from runtime.model.limits import SizeLimits
from runtime.model.log_ids import CommittedOffset
from runtime.model.records import LastOffsets, Membership, Offsets, TopicPartition, Write

P = TypeVar("P", bound=AIOKafkaProducer)


class _BatchSender(Generic[P]):
    """What both producers share: sends groups of records in whole batches."""

    def __init__(self, producer: P, names: KafkaNames, limits: SizeLimits) -> None:
        self._producer = producer
        self._names = names
        self._limits = limits

    async def start(self) -> None:
        await aiokafka_internals.start_producer(self._producer)

    async def end(self) -> None:
        await aiokafka_internals.stop_producer(self._producer)

    async def send(self, *groups: Sequence[Write]) -> LastOffsets:
        """Sends all records, in order within each partition, and returns the last offset written to each.

        Hands whole batches to aiokafka, which spends a future and a metadata lookup on each single record. Raises what
        `SizeLimits.rejected` makes of a batch that its topic rejects as too large.
        """
        batches: dict[TopicPartition, list[tuple[Any, list[Write]]]] = {}
        for writes in groups:
            for write in writes:
                topic, partition, key, value, headers = write
                pending = batches.setdefault(TopicPartition(topic, partition), [])
                message = {"timestamp": None, "key": key, "value": value, "headers": list(headers)}
                # There is no batch yet, or the last one is full.
                if not pending or self._limits.one_by_one(topic) or pending[-1][0].append(**message) is None:
                    pending.append((self._producer.create_batch(), []))
                    pending[-1][0].append(**message)
                pending[-1][1].append(write)
        sent = [(tp, *batch) for tp, pending in batches.items() for batch in pending]
        acks = [
            await self._producer.send_batch(batch, self._names.topic(tp.topic), partition=tp.partition)
            for tp, batch, _ in sent
        ]
        if acks:
            await asyncio.wait(acks, return_when=asyncio.FIRST_EXCEPTION)
        ends: dict[TopicPartition, int] = {}
        for (tp, _, writes), ack in zip(sent, acks, strict=True):
            if ack.done() and isinstance(ack.exception(), MessageSizeTooLargeError):
                raise self._limits.rejected(tp.topic, [w.size for w in writes])
        for (tp, batch, _), ack in zip(sent, await asyncio.gather(*acks), strict=True):
            ends[tp] = max(ack.offset + batch.record_count() - 1, ends.get(tp, -1))
        return ends


class KafkaProducer(_BatchSender[AIOKafkaProducer]):
    """Implements `runtime.loop.checkpoint.Producer`: idempotent, acks=all, no transactions."""

    def __init__(self, settings: Settings, limits: SizeLimits) -> None:
        super().__init__(clients.producer(settings), KafkaNames(settings.topic_prefix), limits)


class KafkaTransactionalProducer(_BatchSender[FencedProducer]):
    """Implements `runtime.loop.checkpoint.TransactionalProducer`: commits offsets of `group` in the transaction."""

    def __init__(
        self,
        settings: Settings,
        group: str,
        transactional_id: str,
        limits: SizeLimits,
        metadata: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """`metadata`: the metadata to commit with the offset of each partition."""
        names = KafkaNames(settings.topic_prefix)
        super().__init__(clients.transactional_producer(settings, names.group(transactional_id)), names, limits)
        self._group = names.group(group)
        self._metadata = {} if metadata is None else metadata

    async def begin(self) -> None:
        await self._producer.begin_transaction()

    async def send_offsets(self, offsets: Offsets, membership: Membership) -> None:
        physical = {
            self._names.physical(tp): CommittedOffset(offset, self._metadata.get(tp, ""))
            for tp, offset in offsets.items()
        }
        await self._producer.send_offsets(physical, self._group, membership)

    async def commit(self) -> None:
        await self._producer.commit_transaction()
