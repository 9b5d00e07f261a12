"""Commits records and offsets in transactions, by transaction protocol 1, with as few waits as it allows.

aiokafka's sender waits for the answer to each request of a transaction before it writes the next one. Here:

1. AddPartitionsToTxn and AddOffsetsToTxn are written at once. A broker answers the requests of a connection one by one,
   so the second one never meets the first one half done. Meanwhile batches are encoded.
2. Once the partitions are added, Produce is written to every leader; once the group is added, TxnOffsetCommit.
3. Once all of them are acknowledged, EndTxn. Behind a Produce in flight, it might commit a part of the batch.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from time import perf_counter
from typing import Any

from aiokafka import TopicPartition as Physical
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import ProducerClosed

from runtime.common import failpoints
from runtime.common.deadlines import PRODUCER_STOP_S
from runtime.errors import MemberFenced
from runtime.kafka.connections import Connections
from runtime.kafka.coordinators import Coordinators
from runtime.kafka.partition_leaders import Batches, PartitionLeaders
from runtime.kafka.transaction_requests import (
    AddOffsetsToTxn,
    AddPartitionsToTxn,
    EndTxn,
    InitProducerId,
    Place,
    ProducerIdResponse,
    TxnOffsetCommit,
)
from runtime.metrics.commits import METRICS, CommitMetrics
from runtime.model.log_ids import CommittedOffset
from runtime.model.records import Membership

log = logging.getLogger(__name__)


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
        self._connections = Connections(client)
        self._coordinators = Coordinators(client, self._connections, metrics)
        self._leaders = PartitionLeaders(client, self._connections, transactional_id, metrics)
        self._producer_id, self._epoch = -1, -1
        self._sequences: dict[Physical, int] = {}
        self._running: set[asyncio.Future[Any]] = set()
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
        self._producer_id, self._epoch = answer.producer_id, answer.epoch
        self._usable = True

    async def close(self) -> None:
        """Closes within about `PRODUCER_STOP_S`. A transaction in progress ends with `ProducerClosed`."""
        self._usable = False
        for task in self._running:
            task.cancel()
        self._connections.abort()
        try:
            async with asyncio.timeout(PRODUCER_STOP_S):
                await self._client.close()
        except Exception as error:
            log.debug("client did not close error=%r", error)

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
                await self._finish(self._run(self._end()))
        finally:
            await self._cancel()
        self._usable = True
        return ends

    async def _write(
        self, partitions: Collection[Physical], build: Callable[[], Batches], commit: GroupOffsets
    ) -> dict[Place, int]:
        """Writes records and offsets."""
        began = perf_counter()
        adding = self._run(self._add_partitions(partitions, began)) if partitions else None
        committing = [self._run(self._commit_offsets(commit, began))] if commit.offsets else []
        await asyncio.sleep(0)  # both requests are written now
        if adding is None:
            await self._finish(*committing)
            return {}
        producing = self._run(self._produce(adding, self._numbered(build())))
        await self._finish(*committing, producing)
        self._metrics.wrote(len(partitions))
        ends: dict[Place, int] = producing.result()
        return ends

    def _numbered(self, batches: Batches) -> Batches:
        """Encodes batches with their sequence numbers."""
        for tp, of_partition in batches.items():
            sequence = self._sequences.get(tp, 0)
            for batch in of_partition:
                sequence = batch.finish(self._producer_id, self._epoch, sequence)
            self._sequences[tp] = sequence
        return batches

    async def _add_partitions(self, partitions: Collection[Physical], began: float) -> None:
        request = AddPartitionsToTxn(self._id, self._producer_id, self._epoch, partitions)
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
        mine = self._producer_id, self._epoch
        await self._coordinators.ask(
            CoordinationType.TRANSACTION, self._id, AddOffsetsToTxn(self._id, *mine, commit.group)
        )
        failpoints.reach("commit.group")
        request = TxnOffsetCommit(self._id, commit.group, *mine, commit.membership, commit.offsets)
        await self._coordinators.ask(CoordinationType.GROUP, commit.group, request)
        self._metrics.took("offsets", perf_counter() - began)

    async def _end(self) -> None:
        began = perf_counter()
        request = EndTxn(self._id, self._producer_id, self._epoch)
        await self._coordinators.ask(CoordinationType.TRANSACTION, self._id, request)
        self._metrics.took("end", perf_counter() - began)
        failpoints.reach("commit.ended")

    def _run(self, step: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        task = asyncio.ensure_future(step)
        self._running.add(task)
        return task

    async def _finish(self, *tasks: asyncio.Future[Any]) -> None:
        """Waits for tasks until one fails, and raises its error; `MemberFenced` comes before other errors."""
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if any(task.cancelled() for task in tasks):
            raise ProducerClosed("the sender was closed during a transaction")
        errors = [error for task in tasks if task.done() and (error := task.exception()) is not None]
        for error in sorted(errors, key=lambda error: not isinstance(error, MemberFenced)):
            raise error

    async def _cancel(self) -> None:
        """Cancels the steps that still run, after an error."""
        running, self._running = self._running, set()
        unfinished = [task for task in running if not task.done()]
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished)
        for task in running:
            if not task.cancelled():
                task.exception()  # otherwise asyncio logs "exception was never retrieved"
