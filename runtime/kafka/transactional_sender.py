"""Commits records and offsets in transactions, by transaction protocol 1, with as few waits as it allows.

aiokafka's sender waits for the answer to each request of a transaction before it writes the next one. Here:

1. AddPartitionsToTxn and AddOffsetsToTxn are written at once. A broker answers the requests of a connection one by one,
   so the second one never meets the first one half done. Meanwhile batches are encoded.
2. Once the partitions are added, Produce is written to every leader; once the group is added, TxnOffsetCommit.
3. Once all of them are acknowledged, EndTxn. Behind a Produce in flight, it might commit a part of the batch.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from time import perf_counter

from aiokafka import TopicPartition as Physical
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import ProducerClosed

from runtime.common import failpoints
from runtime.kafka.commit_requests import (
    AddOffsetsToTxn,
    AddPartitionsToTxn,
    EndTxn,
    InitProducerId,
    Place,
    ProducerIdResponse,
    TxnOffsetCommit,
)
from runtime.kafka.connections import Connections
from runtime.kafka.coordinators import Coordinators
from runtime.kafka.partition_leaders import PartitionLeaders
from runtime.kafka.record_batches import Batches, Sequences
from runtime.kafka.sender_steps import SenderSteps
from runtime.metrics.commits import METRICS, CommitMetrics
from runtime.model.log_ids import CommittedOffset
from runtime.model.records import Membership


class GroupOffsets:
    """Offsets to commit for a group.

    Arguments:
        group: physical name of the group.
        membership: of the worker when it polled up to these offsets.
        offsets: by physical partition; may be empty.
    """

    __slots__ = ("group", "membership", "offsets")

    def __init__(self, group: str, membership: Membership, offsets: Mapping[Physical, CommittedOffset]) -> None:
        self.group = group
        self.membership = membership
        self.offsets = offsets


class TransactionalSender:
    """Sends the transactions of a transactional id, one after another. After an error it is useless: replace it.

    Arguments:
        client: not started yet, and closed with the sender. Its connections and metadata are used.
        transactional_id: fences earlier senders of the same id when this one starts.
        timeout_ms: milliseconds after which the broker aborts an open transaction.
        metrics: count requests and time steps.
    """

    def __init__(
        self, client: AIOKafkaClient, transactional_id: str, timeout_ms: int, metrics: CommitMetrics = METRICS
    ) -> None:
        self._client = client
        self._id = transactional_id
        self._timeout_ms = timeout_ms
        self._metrics = metrics
        connections = Connections(client)
        self._steps = SenderSteps(client, connections)
        self._coordinators = Coordinators(client, connections, metrics)
        self._leaders = PartitionLeaders(client, connections, transactional_id, metrics)
        self._sequences = Sequences(-1, -1)
        self._usable = False

    async def start(self) -> None:
        """Starts. Ends the open transaction of an earlier sender of the same id. Leaves nothing behind if it fails."""
        try:
            await self._client.bootstrap()
            answer = await self._coordinators.ask(
                CoordinationType.TRANSACTION, self._id, InitProducerId(self._id, self._timeout_ms)
            )
        except BaseException:
            await self.close()
            raise
        assert isinstance(answer, ProducerIdResponse)
        self._sequences = Sequences(answer.producer_id, answer.epoch)
        self._usable = True

    async def close(self) -> None:
        """Closes within about `PRODUCER_STOP_S`. A transaction in progress ends with `ProducerClosed`."""
        self._usable = False
        await self._steps.close()

    async def transact(
        self, partitions: Collection[Physical], build: Callable[[], Batches], commit: GroupOffsets
    ) -> dict[Place, int]:
        """Commits records and offsets, all or nothing. Returns the offset of the last record of each partition.

        Arguments:
            partitions: those with records.
            build: makes their batches. Called while the coordinator answers.
            commit: the offsets.

        Raises:
            MemberFenced: the membership is no longer valid; nothing is committed.
            BatchRejected: a batch is too large; nothing is committed.
            KafkaError: whether the transaction is committed is unknown.
        """
        if not self._usable:
            raise ProducerClosed("the sender is closed, or a transaction of it has failed or is in progress")
        self._usable = False
        try:
            ends = await self._write(partitions, build, commit)
            failpoints.reach("commit.offsets")
            if partitions or commit.offsets:
                await self._steps.finish(self._steps.run(self._end()))
        finally:
            await self._steps.end_all()
        self._usable = True
        return ends

    async def _write(
        self, partitions: Collection[Physical], build: Callable[[], Batches], commit: GroupOffsets
    ) -> dict[Place, int]:
        """Writes records and offsets."""
        began = perf_counter()
        adding = self._steps.run(self._add_partitions(partitions, began)) if partitions else None
        committing = [self._steps.run(self._commit_offsets(commit, began))] if commit.offsets else []
        await asyncio.sleep(0)  # both requests are written now
        if adding is None:
            await self._steps.finish(*committing)
            return {}
        producing = self._steps.run(self._produce(adding, self._sequences.number(build())))
        await self._steps.finish(*committing, producing)
        self._metrics.wrote(len(partitions))
        ends: dict[Place, int] = producing.result()
        return ends

    async def _add_partitions(self, partitions: Collection[Physical], began: float) -> None:
        request = AddPartitionsToTxn(self._id, *self._mine, partitions)
        await self._coordinators.ask(CoordinationType.TRANSACTION, self._id, request)
        self._metrics.took("add_partitions", perf_counter() - began)
        failpoints.reach("commit.partitions")

    async def _produce(self, adding: asyncio.Future[None], batches: Batches) -> dict[Place, int]:
        await adding
        began = perf_counter()
        ends = await self._leaders.write(batches)
        self._metrics.took("produce", perf_counter() - began)
        failpoints.reach("commit.sent")
        return ends

    async def _commit_offsets(self, commit: GroupOffsets, began: float) -> None:
        await self._coordinators.ask(
            CoordinationType.TRANSACTION, self._id, AddOffsetsToTxn(self._id, *self._mine, commit.group)
        )
        failpoints.reach("commit.group")
        request = TxnOffsetCommit(self._id, commit.group, *self._mine, commit.membership, commit.offsets)
        await self._coordinators.ask(CoordinationType.GROUP, commit.group, request)
        self._metrics.took("offsets", perf_counter() - began)

    async def _end(self) -> None:
        began = perf_counter()
        request = EndTxn(self._id, *self._mine)
        await self._coordinators.ask(CoordinationType.TRANSACTION, self._id, request)
        self._metrics.took("end", perf_counter() - began)
        failpoints.reach("commit.ended")

    @property
    def _mine(self) -> tuple[int, int]:
        """Producer id and epoch."""
        return self._sequences.producer_id, self._sequences.epoch
