"""The producers of the two checkpoints: idempotent, and transactional."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition as Physical
from aiokafka.errors import MessageSizeTooLargeError

from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.kafka.partition_leaders import Batches, BatchRejected
from runtime.kafka.record_batches import split
from runtime.kafka.transaction_requests import Place
from runtime.kafka.transactional_sender import GroupOffsets, TransactionalSender
from runtime.model.limits import SizeLimits
from runtime.model.log_ids import CommittedOffset
from runtime.model.records import LastOffsets, Membership, Offsets, TopicPartition, Write


class KafkaProducer:
    """Implements `runtime.loop.checkpoint.Producer`: idempotent, acks=all, no transactions."""

    def __init__(self, settings: Settings, limits: SizeLimits) -> None:
        self._producer = clients.producer(settings)
        self._names = KafkaNames(settings.topic_prefix)
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


class KafkaTransactionalProducer:
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
        self._names = KafkaNames(settings.topic_prefix)
        self._sender = TransactionalSender(
            clients.transaction_client(settings),
            self._names.group(transactional_id),
            int(settings.transaction_timeout_s * 1000),
        )
        self._group = self._names.group(group)
        self._limits = limits
        self._metadata = {} if metadata is None else metadata
        self._physical: dict[Place, Physical] = {}
        self._logical: dict[Place, TopicPartition] = {}

    async def start(self) -> None:
        await self._sender.start()

    async def end(self) -> None:
        await self._sender.close()

    async def transact(
        self, groups: Sequence[Sequence[Write]], offsets: Offsets, membership: Membership
    ) -> LastOffsets:
        """Commits all records, in order within each partition, and offsets. Returns each partition's last new offset.

        Raises what `SizeLimits.rejected` makes of a batch that its topic rejects as too large, `MemberFenced`, and
        errors of the broker.
        """
        records: dict[Physical, list[Write]] = {}
        for writes in groups:
            for write in writes:
                tp = self._physical.get(write[:2]) or self._new_physical(write)
                if (of_partition := records.get(tp)) is None:
                    of_partition = records[tp] = []
                of_partition.append(write)
        commit = {
            self._names.physical(tp): CommittedOffset(offset, self._metadata.get(tp, ""))
            for tp, offset in offsets.items()
        }

        def build() -> Batches:
            return {
                tp: split(writes, one_by_one=self._limits.one_by_one(writes[0].topic)) for tp, writes in records.items()
            }

        try:
            ends = await self._sender.transact(records, build, GroupOffsets(self._group, membership, commit))
        except BatchRejected as error:
            writes = error.batch.writes
            raise self._limits.rejected(writes[0].topic, [w.size for w in writes]) from error
        return {self._logical[place]: offset for place, offset in ends.items()}

    def _new_physical(self, write: Write) -> Physical:
        logical = TopicPartition(write.topic, write.partition)
        physical = self._physical[logical] = self._names.physical(logical)
        self._logical[physical] = logical
        return physical
