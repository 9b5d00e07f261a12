"""Faust's transport with a consumer that polls batches, in the thread of the worker.

Faust's driver runs its consumer in a thread of its own and makes two tasks per message. Here all waiting records become
one `PolledBatch` on the channel that the worker's agent reads.
"""

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import ConsumerRebalanceListener
from aiokafka import TopicPartition as Physical
from faust.transport import base
from mode import Service

from runtime.kafka.group_consumer import KafkaGroupConsumer
from runtime.loop.engine import Engine

log = logging.getLogger("runtime.consumer")  # mode logs starts and stops of its services under the module's name


class Consumer(Service, ConsumerRebalanceListener):
    """The worker's consumer as a Faust service: passes batches to the agent, rebalances to the engine."""

    def __init__(self, app: Any, channel: Any, engine: Engine, consumer: KafkaGroupConsumer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._app = app
        self._channel = channel
        self._engine = engine
        self._consumer = consumer
        self._unacked_messages: set[Any] = set()  # read by Faust's streams; batches are not acknowledged one by one

    async def on_task_error(self, error: BaseException) -> None:
        """Called by Faust when the agent failed. Only logs, as the batch was not committed."""
        log.error("agent failed error=%r", error)

    async def on_start(self) -> None:
        await self._consumer.start(self._app.assignor, self)

    async def on_stop(self) -> None:
        await self._engine.poller.stop()
        await self._consumer.stop()

    def assignment(self) -> set[Physical]:
        """Called by Faust: the partitions that the group assigned to this worker."""
        return self._consumer.assignment()

    async def on_partitions_revoked(self, revoked: Collection[Physical]) -> None:
        async with self._or_crash():
            await self._engine.revoked()

    async def on_partitions_assigned(self, assigned: Collection[Physical]) -> None:
        async with self._or_crash():
            membership = self._consumer.membership()
            partitions, standby = {tp.partition for tp in assigned}, self._app.update_members()
            log.info(
                "assigned generation=%d partitions=%s standby=%s",
                membership.generation,
                sorted(partitions),
                sorted(standby),
            )
            await self._engine.assigned([self._consumer.partition(tp) for tp in assigned], membership, standby)

    @asynccontextmanager
    async def _or_crash(self) -> AsyncIterator[None]:
        """Crashes the worker on an error: aiokafka would only log it, and no partition would be restored."""
        try:
            yield
        except Exception as error:
            log.exception("rebalance failed")
            await self.crash(error)

    async def _drain_messages(self, fetcher: Any) -> None:
        """Called by Faust's fetcher: polls batches, and waits until the agent has processed each."""
        poller = self._engine.poller
        while not (self.should_stop or fetcher.should_stop):
            batch = await poller.next()
            if batch is not None:
                await self._channel.put(batch)
                await batch.done.wait()
                poller.processed()


class Transport(base.Transport):
    """Faust's transport. Only its fetcher service is used unchanged."""

    driver_version = "faust-orders"
    default_port = 9092
    Consumer = Consumer
