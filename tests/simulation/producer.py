"""The producers of workers and clients. Like aiokafka's, they retry retriable errors until they are closed."""

import asyncio

from aiokafka.errors import (
    ConcurrentTransactions,
    IllegalGenerationError,
    KafkaError,
    ProducerClosed,
    RebalanceInProgressError,
    UnknownError,
    UnknownMemberIdError,
)

from runtime.errors import MemberFenced
from runtime.model.log_ids import CommittedOffset
from runtime.model.records import TopicPartition
from tests.simulation.network import Channel

BACKOFF_S = 0.02


def with_metadata(offsets, metadata):
    """What a commit of these offsets sends."""
    return {tp: CommittedOffset(offset, metadata.get(tp, "")) for tp, offset in offsets.items()}


class SimulatedProducer:
    """Implements `runtime.loop.checkpoint.Producer`.

    A cancelled caller does not stop the send: it continues until the producer is closed. A request in flight arrives in
    any case.

    Arguments:
        group: that offsets are committed for.
        metadata: the metadata to commit with the offset of each partition.
    """

    def __init__(self, process, network, broker, group="", metadata=None):
        self._network = network
        self._broker = broker
        self._group = group
        self._metadata = {} if metadata is None else metadata
        self._group_coordinator = Channel(process, "producer:group")
        self._channels = [Channel(process, f"producer:{node}") for node in range(broker.NODES)]
        self._coordinator = Channel(process, "producer:coordinator")
        self._tasks = {}
        self._closed = False
        self._producer = self._epoch = -1
        self._sequences = {}
        self._transactional_id = None

    async def start(self):
        self._producer, self._epoch = await self._ask(
            self._coordinator, "InitProducerId", lambda: (self._broker.transactions.new_producer(), 0)
        )

    async def send(self, *groups):
        by_node, ends = {}, {}
        for writes in groups:
            for write in writes:
                tp = TopicPartition(write.topic, write.partition)
                by_node.setdefault(self._broker.node(tp), {}).setdefault(tp, []).append(write)
        if by_node:
            await self._before_sending([tp for batches in by_node.values() for tp in batches])
            for acks in await asyncio.gather(*(self._produce(node, batches) for node, batches in by_node.items())):
                ends |= acks
        return ends

    async def commit(self, offsets, membership):
        offsets, group = with_metadata(offsets, self._metadata), self._broker.group(self._group)

        def commit():
            try:
                group.commit(membership.member_id, membership.generation, offsets)
            except (IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError) as error:
                raise MemberFenced(type(error).__name__) from None

        await self._ask(self._group_coordinator, "OffsetCommit", commit)

    async def end(self):
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _before_sending(self, partitions):
        pass

    async def _produce(self, node, batches):
        numbered = {}
        for tp, writes in batches.items():
            numbered[tp] = (self._sequences.get(tp, 0), writes)
            self._sequences[tp] = numbered[tp][0] + len(writes)
        acks = await self._ask(
            self._channels[node],
            "Produce",
            lambda: self._broker.produce(self._producer, self._epoch, self._transactional_id, numbered),
        )
        return {tp: base + len(batches[tp]) - 1 for tp, base in acks.items()}

    async def _ask(self, channel, name, operation):
        """Repeats a request until it succeeds, even if its caller is cancelled."""
        if self._closed:
            raise ProducerClosed
        task = asyncio.ensure_future(self._request(channel, name, operation))
        self._tasks[task] = None
        task.add_done_callback(self._done)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._closed and task.cancelled():
                raise ProducerClosed from None
            raise

    def _done(self, task):
        self._tasks.pop(task, None)
        if not task.cancelled():
            task.exception()  # the caller gets the error, if it still waits

    async def _request(self, channel, name, operation):
        while True:
            try:
                return await self._network.call(channel, name, operation)
            except KafkaError as error:
                if not (error.retriable or isinstance(error, ConcurrentTransactions)):
                    raise
            await asyncio.sleep(BACKOFF_S)


class SimulatedTransactionalProducer(SimulatedProducer):
    """Implements `runtime.loop.checkpoint.TransactionalProducer`."""

    def __init__(self, process, network, broker, group, transactional_id, timeout_s, metadata):
        super().__init__(process, network, broker, group, metadata)
        self._transactional_id = transactional_id
        self._timeout_s = timeout_s
        self._added = set()
        self._open = False

    async def start(self):
        coordinator = self._broker.transactions
        self._producer, self._epoch = await self._ask(
            self._coordinator,
            "InitProducerId",
            lambda: coordinator.start(self._transactional_id, self._timeout_s),
        )

    async def transact(self, groups, offsets, membership):
        """Records and offsets at the same time, each after it was added; then the end. As `TransactionalSender`."""
        assert not self._open, "a transaction is open"
        self._open = True
        self._added = set()
        steps = [asyncio.ensure_future(self.send(*groups)), asyncio.ensure_future(self._offsets(offsets, membership))]
        try:
            await asyncio.wait(steps, return_when=asyncio.FIRST_EXCEPTION)
            errors = [error for step in steps if step.done() and (error := step.exception())]
            for error in sorted(errors, key=lambda error: not isinstance(error, MemberFenced)):
                raise error
        finally:
            for step in steps:
                step.cancel()
        await self._end()
        return steps[0].result()

    async def _offsets(self, offsets, membership):
        offsets, coordinator = with_metadata(offsets, self._metadata), self._broker.transactions
        mine = self._transactional_id, self._producer, self._epoch
        await self._ask(self._coordinator, "AddOffsetsToTxn", lambda: coordinator.add(*mine, group=self._group))
        await self._ask(
            self._group_coordinator,
            "TxnOffsetCommit",
            lambda: self._broker.commit_offsets_in_transaction(self._group, *mine, membership, offsets),
        )

    async def _end(self):
        coordinator = self._broker.transactions
        await self._ask(
            self._coordinator,
            "EndTxn",
            lambda: coordinator.end(self._transactional_id, self._producer, self._epoch, committed=True),
        )
        self._open = False

    async def _before_sending(self, partitions):
        new = [tp for tp in partitions if tp not in self._added]
        if new:
            self._added.update(new)
            coordinator = self._broker.transactions
            mine = self._transactional_id, self._producer, self._epoch
            await self._ask(self._coordinator, "AddPartitionsToTxn", lambda: coordinator.add(*mine, new))


class Broken(UnknownError):
    """A random broker error that is neither fencing nor retriable."""

    retriable = False
