"""The parts of a worker that exist only once it joins its consumer group, and how they are connected."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from yarl import URL

from runtime.common.clock import elapsed_s, utc_now
from runtime.common.settings import Settings
from runtime.data_loss.losses import LossReporter
from runtime.faust_adapter.app import App
from runtime.health.watchdog import Watchdog
from runtime.kafka.group_consumer import KafkaGroupConsumer
from runtime.kafka.log_reader import KafkaLogReader
from runtime.kafka.producers import KafkaProducer, KafkaTransactionalProducer
from runtime.kafka.topics import topics_of
from runtime.loop.checkpoint import AtLeastOnce, Checkpoint, ExactlyOnce
from runtime.loop.engine import Engine, EngineSettings, Ports
from runtime.loop.ownership import Ownership
from runtime.loop.standby import StandbyReplicas
from runtime.metrics.loop import LoopMetrics
from runtime.metrics.side_effects import METRICS as SIDE_EFFECTS
from runtime.model.limits import SizeLimits
from runtime.model.records import TopicPartition
from runtime.model.topology import Topology
from runtime.model.watch import Watches
from runtime.state.restore import Restorer
from runtime.state.resume import Inputs
from runtime.state.rocks import RocksStores
from runtime.tracing.tracer import Tracer
from runtime.worker.stop_steps import StopSteps

RESTORE_BYTES, STANDBY_BYTES = 64 * 1024 * 1024, 16 * 1024 * 1024
"""Bytes of fetched changelog records in memory: of a restore, and of standby replicas."""

MIN_FETCH_BYTES = 64 * 1024
"""Bytes, the minimum fetch size of a partition: with less, requests cost more than their records."""

LEAVE_S = 2.5
"""Seconds at a stop to finish the current batch and leave the group."""


@dataclass(frozen=True, slots=True)
class Shared:
    """The parts of a worker that exist before it joins its group.

    Arguments:
        inputs: how far the services of `topology` got.
        name: instance name of the worker; transactional ids contain it.
        network: identity of this host, for the other members of the group.
        url: base URL of the worker.
        on_disk: partitions whose stores are on this disk.
        failed: called with an error that ends the worker.
        tracer: of the worker, if it traces.
    """

    settings: Settings
    topology: Topology
    inputs: Inputs
    ownership: Ownership
    watches: Watches
    limits: SizeLimits
    metrics: LoopMetrics
    stores: RocksStores
    losses: LossReporter
    name: str
    network: str
    url: URL
    on_disk: set[int]
    failed: Callable[[BaseException], None]
    tracer: Tracer | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """Consumer, engine and Faust app of a worker that joins its group."""

    consumer: KafkaGroupConsumer
    stores: RocksStores
    standbys: StandbyReplicas
    engine: Engine
    app: App
    watchdog: Watchdog
    session_timeout_s: float

    @property
    def confirmed(self) -> bool:
        """Whether the group confirmed the membership within a session. A paused worker may be a zombie."""
        return _is_confirmed(self.consumer, self.session_timeout_s)

    async def join(self, stop: StopSteps, failed: Callable[[BaseException], None]) -> None:
        """Joins the group. Partitions are restored in the background."""
        stop.add(self.engine.stop)
        stop.add(self.app.stop, LEAVE_S)
        await self.app.start()
        for watching in (_watch(self.app, failed), self.watchdog.run()):
            task = asyncio.create_task(watching)
            stop.call(task.cancel)


async def prepare(shared: Shared, stop: StopSteps) -> Member:
    """Creates and connects the parts of a member. Adds a stop step for each."""
    settings, topology = shared.settings, shared.topology
    max_stores = max(1, len(topology.tables) * settings.partitions)  # not every service has tables
    reader = KafkaLogReader(settings, topology.group, partition_bytes=max(MIN_FETCH_BYTES, RESTORE_BYTES // max_stores))
    stop.add(reader.stop)
    metadata: dict[TopicPartition, str] = {}
    # Redo tables have rows before any offset is committed, and are of no consequence once they are cleared.
    changelogs = [table.changelog for service in topology.services for table in service.all_tables]
    restorer = Restorer(reader, shared.losses, changelogs, metadata, settings.partitions, shared.inputs)
    # Waits for the leaders of new topics: a client that meets one too early answers only after a back-off.
    await restorer.ends([TopicPartition(topic, p) for topic in topics_of(topology) for p in range(settings.partitions)])
    consumer = KafkaGroupConsumer(settings, topology)
    standby_reader = KafkaLogReader(
        settings, topology.group, max_rows=500, partition_bytes=max(MIN_FETCH_BYTES, STANDBY_BYTES // max_stores)
    )
    stop.add(standby_reader.stop)
    standbys = StandbyReplicas(
        topology, shared.stores, standby_reader, shared.metrics, consumer.confirmed, shared.losses
    )
    stop.add(standbys.stop)
    checkpoint = _new_checkpoint(shared, consumer, metadata)
    await checkpoint.start()
    stop.add(checkpoint.stop)
    engine = Engine(
        topology,
        EngineSettings(
            settings.partitions,
            settings.session_timeout_s,
            settings.side_effect_timeout_s,
            settings.side_effect_longest_pause_s,
        ),
        Ports(consumer, checkpoint, restorer, shared.stores, utc_now, standbys, shared.losses),
        ownership=shared.ownership,
        watches=shared.watches,
        metrics=shared.metrics,
        failed=shared.failed,
        limits=shared.limits,
        tracer=shared.tracer,
    )
    SIDE_EFFECTS.add(engine.side_effects)
    stop.call(partial(SIDE_EFFECTS.remove, engine.side_effects))
    app = App(settings, topology.group, engine, consumer, shared.url)
    app.assignor.topic_partitions = settings.partitions
    app.assignor.report_stores(topology.consumed, shared.on_disk)
    app.assignor.network = shared.network
    app.assignor.services = "+".join(sorted(service.name for service in topology.services))
    stop.call(shared.ownership.lose)  # if leaving the group times out: no batch is applied after this step
    watchdog = Watchdog(
        engine, shared.ownership, consumer.queued, reader, shared.metrics, settings.stall_after_s, shared.failed
    )
    return Member(consumer, shared.stores, standbys, engine, app, watchdog, settings.session_timeout_s)


def _new_checkpoint(shared: Shared, consumer: KafkaGroupConsumer, metadata: dict[TopicPartition, str]) -> Checkpoint:
    settings, group = shared.settings, shared.topology.group
    if settings.at_least_once:
        return AtLeastOnce(
            lambda: KafkaProducer(settings, group, shared.limits, metadata),
            settings.transaction_timeout_s,
            partial(_is_confirmed, consumer, settings.session_timeout_s),
        )
    return ExactlyOnce(
        lambda turn: KafkaTransactionalProducer(
            settings, group, f"{group}-{shared.name}-{turn}", shared.limits, metadata
        ),
        settings.transaction_timeout_s,
    )


def _is_confirmed(consumer: KafkaGroupConsumer, session_timeout_s: float) -> bool:
    return elapsed_s() - consumer.confirmed() < session_timeout_s


async def _watch(app: App, failed: Callable[[BaseException], None]) -> None:
    """Reports that Faust stopped, after an unhandled exception in the loop or the consumer."""
    await app.wait_until_stopped()
    failed(app.crash_reason or RuntimeError("the Faust app stopped"))
