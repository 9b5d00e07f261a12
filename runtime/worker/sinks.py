"""The sinks and jobs of a worker: beside the processing loop, so that no database delays it."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from runtime.common.clock import utc_now
from runtime.common.settings import OnLostRecords, Settings
from runtime.data_loss.losses import LossReporter
from runtime.hosting import Job, ServiceDefinition
from runtime.kafka.publisher import KafkaPublisher
from runtime.kafka.topics import ensure_topics, public_topics
from runtime.metrics.loop import LoopMetrics
from runtime.tracing.tracer import Tracer
from runtime.worker.stop_steps import StopSteps

if TYPE_CHECKING:
    from runtime.sink.engine import SinkEngine

log = logging.getLogger(__name__)

LEAVE_S = 2.0
"""Seconds at a stop to leave the group of a sink."""


class Sinks:
    """Runs the sinks and jobs of the services of a worker."""

    def __init__(self, hosted: Sequence[ServiceDefinition]) -> None:
        self._hosted = hosted
        self._engines: list[SinkEngine] = []
        self._tracer: Tracer | None = None

    def status(self) -> Mapping[str, str]:
        """Of each service with a sink: `storing`, or why nothing is stored now. For `/readyz`."""
        return {engine.service: engine.unavailable or "storing" for engine in self._engines}

    async def start(
        self,
        settings: Settings,
        publisher: KafkaPublisher,
        metrics: LoopMetrics,
        stop: StopSteps,
        failed: Callable[[BaseException], None],
        tracer: Tracer | None = None,
    ) -> None:
        """Starts all of them. `failed` is called with an error that ends the worker."""
        self._tracer = tracer
        for definition in self._hosted:
            if definition.sink is not None:
                await self._start_sink(definition, settings, publisher, metrics, stop, failed)
            for job in definition.jobs:
                stop.call(asyncio.create_task(_repeat(job), name=f"job {job.name}").cancel)

    async def _start_sink(
        self,
        definition: ServiceDefinition,
        settings: Settings,
        publisher: KafkaPublisher,
        metrics: LoopMetrics,
        stop: StopSteps,
        failed: Callable[[BaseException], None],
    ) -> None:
        from runtime.sink.consumer import KafkaSinkConsumer
        from runtime.sink.engine import SinkEngine
        from runtime.sink.postgres import PostgresSinkDatabase  # imports SQLAlchemy, which is slow: not without a sink

        service, sink = definition.service.name, definition.sink
        assert sink is not None
        if definition.database is None:
            raise ValueError(f"service {service!r} has a sink, and no database")
        wanted = public_topics(sink.catalogue)
        await ensure_topics(settings, {name: wanted[name] for name in sink.topics})
        database = PostgresSinkDatabase(definition.database)
        consumer = KafkaSinkConsumer(settings, service, sink.topics)
        losses = LossReporter(metrics, stop=settings.on_lost_records is OnLostRecords.STOP, failed=failed)
        engine = SinkEngine(
            service,
            sink,
            consumer,
            database,
            publisher.publish_all,
            clock=utc_now,
            losses=losses,
            tracer=self._tracer,
        )
        await consumer.start()
        stop.add(database.close)
        stop.add(consumer.stop, LEAVE_S)
        self._engines.append(engine)
        stop.call(asyncio.create_task(engine.run(), name=f"sink {service}").cancel)


async def _repeat(job: Job) -> None:
    while True:
        try:
            await job.run()
        except Exception as error:  # whatever it is: the next run may succeed
            log.warning("job failed, repeated later job=%s error=%r", job.name, error)
        await asyncio.sleep(job.every_s)
