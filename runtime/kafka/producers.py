"""The producers of the two checkpoints: idempotent, and transactional."""

from collections.abc import Mapping, Sequence

from aiokafka import TopicPartition as Physical
from aiokafka.errors import MessageSizeTooLargeError

from runtime.common.settings import Settings
from runtime.kafka import clients
from runtime.kafka.clients import KafkaNames
from runtime.kafka.commit_requests import Place
from runtime.kafka.idempotent_sender import IdempotentSender
from runtime.kafka.partition_leaders import BatchRejected
from runtime.kafka.record_batches import Batches, split
from runtime.kafka.transactional_sender import GroupOffsets, TransactionalSender
from runtime.model.limits import SizeLimits
from runtime.model.log_ids import CommittedOffset
from runtime.model.records import LastOffsets, Membership, Offsets, TopicPartition, Write


class KafkaProducer:
    """Implements `runtime.loop.checkpoint.Producer`: idempotent, acks=all, no transactions."""

    def __init__(
        self,
        settings: Settings,
        group: str,
        limits: SizeLimits,
        metadata: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """`metadata`: the metadata to commit with the offset of each partition."""
        names = KafkaNames(settings.topic_prefix)
        self._sender = IdempotentSender(clients.sender_client(settings), names.group(group))
        self._translation = _Translation(names, limits, {} if metadata is None else metadata, transactional=False)

    async def start(self) -> None:
        await self._sender.start()

    async def end(self) -> None:
        await self._sender.close()

    async def send(self, *groups: Sequence[Write]) -> LastOffsets:
        """Sends all records, in order within each partition, and returns the last offset written to each.

        Raises what `SizeLimits.rejected` makes of a batch that its topic rejects as too large.
        """
        translation = self._translation
        batches = translation.batches(translation.by_partition(groups))
        if not batches:
            return {}
        try:
            return translation.ends(await self._sender.write(batches))
        except BatchRejected as error:
            raise translation.rejected(error) from error

    async def commit(self, offsets: Offsets, membership: Membership) -> None:
        await self._sender.commit(membership, self._translation.offsets(offsets))


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
        names = KafkaNames(settings.topic_prefix)
        self._sender = TransactionalSender(
            clients.sender_client(settings), names.group(transactional_id), int(settings.transaction_timeout_s * 1000)
        )
        self._group = names.group(group)
        self._translation = _Translation(names, limits, {} if metadata is None else metadata, transactional=True)

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
        translation = self._translation
        records = translation.by_partition(groups)
        commit = GroupOffsets(self._group, membership, translation.offsets(offsets))
        try:
            ends = await self._sender.transact(records, lambda: translation.batches(records), commit)
        except BatchRejected as error:
            raise translation.rejected(error) from error
        return translation.ends(ends)


class _Translation:
    """Converts what a checkpoint writes into batches of physical partitions, and the answers back.

    Arguments:
        names: of topics.
        limits: learns of rejected batches.
        metadata: to commit with the offset of each partition.
        transactional: whether batches are of a transaction.
    """

    def __init__(
        self, names: KafkaNames, limits: SizeLimits, metadata: Mapping[TopicPartition, str], *, transactional: bool
    ) -> None:
        self._transactional = transactional
        self._names = names
        self._limits = limits
        self._metadata = metadata
        self._physical: dict[Place, Physical] = {}
        self._logical: dict[Place, TopicPartition] = {}

    def by_partition(self, groups: Sequence[Sequence[Write]]) -> dict[Physical, list[Write]]:
        records: dict[Physical, list[Write]] = {}
        for writes in groups:
            for write in writes:
                tp = self._physical.get(write[:2]) or self._new_physical(write)
                if (of_partition := records.get(tp)) is None:
                    of_partition = records[tp] = []
                of_partition.append(write)
        return records

    def batches(self, records: Mapping[Physical, Sequence[Write]]) -> Batches:
        one_by_one, transactional = self._limits.one_by_one, self._transactional
        return {
            tp: split(writes, one_by_one=one_by_one(writes[0].topic), transactional=transactional)
            for tp, writes in records.items()
        }

    def offsets(self, offsets: Offsets) -> dict[Physical, CommittedOffset]:
        return {
            self._names.physical(tp): CommittedOffset(offset, self._metadata.get(tp, ""))
            for tp, offset in offsets.items()
        }

    def ends(self, ends: Mapping[Place, int]) -> LastOffsets:
        return {self._logical[place]: offset for place, offset in ends.items()}

    def rejected(self, error: BatchRejected) -> MessageSizeTooLargeError:
        writes = error.batch.writes
        return self._limits.rejected(writes[0].topic, [w.size for w in writes])

    def _new_physical(self, write: Write) -> Physical:
        logical = TopicPartition(write.topic, write.partition)
        physical = self._physical[logical] = self._names.physical(logical)
        self._logical[physical] = logical
        return physical
