"""Writes record batches and commits offsets without transactions: each batch once, in order within a partition.

Brokers recognise a repeated batch by producer id and sequence number. Of a partition one batch is in flight at a time,
so a batch that fails has none behind it.
"""

from collections.abc import Mapping
from time import perf_counter

from aiokafka import TopicPartition as Physical
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import ProducerClosed

from runtime.kafka.commit_requests import InitProducerId, OffsetCommit, Place, ProducerIdResponse
from runtime.kafka.connections import Connections
from runtime.kafka.coordinators import Coordinators
from runtime.kafka.partition_leaders import PartitionLeaders
from runtime.kafka.record_batches import Batches, Sequences
from runtime.kafka.sender_steps import SenderSteps
from runtime.metrics.commits import METRICS, CommitMetrics
from runtime.model.log_ids import CommittedOffset
from runtime.model.records import Membership

_NO_TRANSACTION_MS = -1
"""Time limit of transactions in the request of a producer that has none."""


class IdempotentSender:
    """Sends batches, one write after another. After an error of a write it is useless: replace it.

    Arguments:
        client: not started yet, and closed with the sender. Its connections and metadata are used.
        group: physical name of the group that offsets are committed for.
        metrics: count requests and time steps.
    """

    def __init__(self, client: AIOKafkaClient, group: str, metrics: CommitMetrics = METRICS) -> None:
        self._client = client
        self._group = group
        self._metrics = metrics
        connections = Connections(client)
        self._steps = SenderSteps(client, connections)
        self._coordinators = Coordinators(client, connections, metrics)
        self._leaders = PartitionLeaders(client, connections, None, metrics)
        self._sequences = Sequences(-1, -1)
        self._open = self._usable = False

    async def start(self) -> None:
        """Gets a producer id of its own. Leaves nothing behind if it fails."""
        try:
            await self._client.bootstrap()
            answer = await self._coordinators.ask_any(InitProducerId(None, _NO_TRANSACTION_MS))
        except BaseException:
            await self.close()
            raise
        assert isinstance(answer, ProducerIdResponse)
        self._sequences = Sequences(answer.producer_id, answer.epoch)
        self._open = self._usable = True

    async def close(self) -> None:
        """Closes within about `PRODUCER_STOP_S`. What is in progress ends with `ProducerClosed`."""
        self._open = self._usable = False
        await self._steps.close()

    async def write(self, batches: Batches) -> dict[Place, int]:
        """Returns once every in-sync replica has all batches, with the offset of the last record of each partition.

        Raises:
            BatchRejected: a batch is too large.
            KafkaError: which of the batches are written is unknown.
        """
        if not self._usable:
            raise ProducerClosed("the sender is closed, or a write has failed or is in progress")
        self._usable = False
        began = perf_counter()
        writing = self._steps.run(self._leaders.write(self._sequences.number(batches)))
        try:
            await self._steps.finish(writing)
        finally:
            await self._steps.end(writing)
        self._metrics.took("produce", perf_counter() - began)
        self._metrics.wrote(len(batches))
        self._usable = self._open
        ends: dict[Place, int] = writing.result()
        return ends

    async def commit(self, membership: Membership, offsets: Mapping[Physical, CommittedOffset]) -> None:
        """Commits offsets by physical partition. May run while batches are written.

        Raises:
            MemberFenced: the membership is no longer valid.
            KafkaError: whether the offsets are committed is unknown.
        """
        if not self._open:
            raise ProducerClosed("the sender is closed")
        began = perf_counter()
        request = OffsetCommit(self._group, membership, offsets)
        asking = self._steps.run(self._coordinators.ask(CoordinationType.GROUP, self._group, request))
        try:
            await self._steps.finish(asking)
        finally:
            await self._steps.end(asking)
        self._metrics.took("offsets", perf_counter() - began)
