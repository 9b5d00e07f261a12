"""The Faust app of a worker: supervision, and one agent that steps the processing loop."""

import logging
from collections.abc import Iterable
from typing import Any

import faust
from faust.app.base import BootStrategy
from yarl import URL

from runtime.common.settings import Settings
from runtime.faust_adapter.assignor import Assignor
from runtime.faust_adapter.transport import Consumer, Transport
from runtime.kafka.clients import KafkaNames
from runtime.kafka.group_consumer import KafkaGroupConsumer
from runtime.loop.engine import Engine

log = logging.getLogger(__name__)


class Boot(BootStrategy):
    """Starts three of Faust's services: consumer, agent, fetcher.

    Not started: the producer (the checkpoint has transactional ones), tables and recovery (`runtime.loop.rebalance`
    restores state), the conductor (there is one stream), the web server (HTTP is served before Kafka is reached).
    """

    def server(self) -> Iterable[Any]:
        return [self.app.consumer, *self.agents(), self.app._fetcher]  # noqa: SLF001


class App(faust.App):
    """A worker's Faust app.

    Arguments:
        settings: of the worker.
        group: consumer group, without the deployment's prefix.
        engine: processes batches.
        consumer: the group consumer.
        url: base URL of the worker, which the assignor sends to the other members.
    """

    BootStrategy = Boot

    SIDE_EFFECTS_S = 1.0
    """Seconds, the most that a stop waits for running side effects. Leaving the group needs time as well."""

    def __init__(self, settings: Settings, group: str, engine: Engine, consumer: KafkaGroupConsumer, url: URL) -> None:
        super().__init__(
            KafkaNames(settings.topic_prefix).group(group),
            broker=[f"kafka://{server.strip()}" for server in settings.kafka_bootstrap_servers.split(",")],
            canonical_url=str(url),
            datadir=str(settings.state_dir / "faust"),
            store="memory://",
            web_enabled=False,
            topic_disable_leader=True,
            table_standby_replicas=settings.standby_replicas,
            PartitionAssignor=Assignor,
            autodiscover=False,
        )
        self._engine = engine
        self._group_consumer = consumer
        self.owners: dict[int, URL] = {}
        """Base URL of the owner of each partition, as of the last rebalance."""
        self.standbys: dict[int, list[URL]] = {}
        """Base URLs of the workers with a standby replica of each partition."""
        self.refused = ""
        """Why the group assigns nothing to this worker; empty if it does not refuse it."""
        self.batches = self.channel(maxsize=1)
        self.agent(self.batches, name="loop")(self._process)

    async def _process(self, stream: Any) -> None:
        """The agent: processes batch after batch."""
        async for batch in stream:
            try:
                await self._engine.step(batch)
            except Exception as error:  # a bug: nothing of the batch was acknowledged, so end with the reason
                log.exception("loop failed")
                await self.crash(error)

    def update_members(self) -> set[int]:
        """Called after a rebalance: reads owners, standbys and refusal from the assignor.

        Returns the partitions that this worker keeps standby replicas of.
        """
        self.owners, self.standbys = self.assignor.owners(), self.assignor.standbys()
        before, self.refused = self.refused, self.assignor.refused or ""
        if self.refused and self.refused != before:
            log.error("worker refused by its group reason=%s", self.refused)
        elif before and not self.refused:
            log.info("worker accepted by its group")
        return {tp.partition for tp in self.assignor.assigned_standbys()}

    async def on_start(self) -> None:
        await super().on_start()
        self.flow_control.resume()  # Faust does so at the end of its own recovery, which is not used

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker, app=self, loop=self.loop)

    def _new_consumer(self) -> Consumer:
        return Consumer(self, self.batches, self._engine, self._group_consumer, beacon=self.beacon, loop=self.loop)

    async def _stop_consumer(self) -> None:
        await self._engine.revoked(self.SIDE_EFFECTS_S)
