"""The worker: services in one process around one processing loop, with their HTTP routes."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from yarl import URL

from runtime.common.deadlines import SharedTimeout
from runtime.common.partitioning import partition_of
from runtime.common.settings import OnLostRecords, Settings
from runtime.data_loss.losses import LossReporter
from runtime.errors import BrokerUnavailable, KeyNotOwned, PartitionNotOwned
from runtime.group.offset_migration import find_group
from runtime.group.reachability import network_identity
from runtime.hosting import ServiceDefinition, StaleRow
from runtime.http.server import application
from runtime.kafka.clients import KafkaNames
from runtime.kafka.publisher import KafkaPublisher
from runtime.kafka.topics import ensure_topics, topics_of, with_redo_tables
from runtime.loop.ownership import Ownership
from runtime.metrics.loop import METRICS, LoopMetrics
from runtime.metrics.side_effects import status_by_service
from runtime.metrics.worker import METRICS as WORKERS
from runtime.metrics.worker import WorkerStatus
from runtime.model.limits import SizeLimits
from runtime.model.service import Context, Table
from runtime.model.topology import Topology
from runtime.model.watch import Watch, Watches
from runtime.state.resume import Inputs
from runtime.state.rocks import RocksStores
from runtime.tracing.publishing import Publish, traced
from runtime.tracing.settings import TraceSettings
from runtime.tracing.start import STOP_S, Tracing, start_tracing
from runtime.tracing.tracer import Tracer
from runtime.worker.broker import report_unkept_settings, until_reached, with_guarantee
from runtime.worker.disk import disk_space
from runtime.worker.http_side import HttpSide, serve
from runtime.worker.identity import WorkerIdentity
from runtime.worker.loss_dead_letters import LossDeadLetters
from runtime.worker.member import Member, Shared, prepare
from runtime.worker.sinks import Sinks
from runtime.worker.stop_steps import CLOSE_S, StopSteps
from schemas.topics import Topic
from schemas.wire import Message

if TYPE_CHECKING:
    from runtime.database.pool import Database

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class Worker:
    """Implements `runtime.hosting.Host`. Must be created inside a running event loop.

    Arguments:
        hosted: the services of the worker.
        settings: of the worker.
    """

    DRAIN_S = 2.0
    """Seconds of a stop for requests in flight and running side effects to finish."""

    def __init__(self, hosted: Sequence[ServiceDefinition], settings: Settings) -> None:
        self.settings = settings
        self.stopping = False
        self.failure: BaseException | None = None
        self.topology = Topology(tuple(h.service for h in hosted))
        self.metrics: LoopMetrics = METRICS
        self.network = network_identity()
        """Identity of this host, for the other members of the group."""
        self._hosted = hosted
        self._ownership = Ownership()
        self._watches = Watches()
        self._ended = asyncio.Event()
        self._open = False
        self._produce_timeout = SharedTimeout(settings.produce_timeout_s)
        self._publisher = KafkaPublisher(settings, self._produce_timeout)
        self._broker_reached = False
        self._http: HttpSide | None = None
        self._member: Member | None = None
        self._sinks = Sinks(hosted)
        self._stop = StopSteps()
        self._tracing: Tracing | None = None
        settings.of(TraceSettings)  # raises `ValidationError` before anything is started

    @property
    def url(self) -> URL:
        assert self._http is not None, "not started"
        return self._http.url

    async def start(self) -> None:
        """Starts all parts, HTTP first, and joins the group. `readiness` shows when partitions are restored."""
        settings, stop = self.settings, self._stop
        identity = WorkerIdentity(settings.state_dir)
        stop.call(identity.release)
        self._tracing = start_tracing(settings, identity.name, self.topology.group)
        if self._tracing is not None:
            stop.add(self._tracing.stop, STOP_S + CLOSE_S)
        stores = RocksStores(settings.state_dir / "tables", settings.state_cache_mb, settings.state_write_buffer_kb)
        on_disk = stores.on_disk()
        stop.call(stores.close)
        WORKERS.add(self)
        stop.call(partial(WORKERS.remove, self))
        await self._serve()  # before any step that may wait, so that /readyz answers and the URL is known
        opened = AsyncExitStack()
        stop.add(opened.aclose)
        for database in self._databases:
            await opened.enter_async_context(database.open())
        for lifespan in [h.lifespan for h in self._hosted if h.lifespan is not None]:
            await opened.enter_async_context(lifespan(self))
        await self._create_topics()
        settings, topology = self.settings, self.topology
        losses = LossReporter(
            self.metrics,
            stop=settings.on_lost_records is OnLostRecords.STOP,
            failed=self._fail,
            persist=LossDeadLetters(settings, topology, self._publisher.publish_all).keep,
        )
        inputs = Inputs(topology)
        if topology.consumed:
            group = await find_group(settings, topology)
            topology = self.topology = topology.in_group(group.name)
            inputs = Inputs(topology, group.elsewhere, settings.catch_up)
        await self._publisher.start()
        stop.add(self._publisher.stop)
        self._broker_reached = True
        self.metrics.expect(topology)
        relays = AsyncExitStack()
        stop.add(relays.aclose)
        for outbox in [h.outbox for h in self._hosted if h.outbox is not None]:
            publish: Publish = self._publisher.publish_all
            if self._tracer is not None:
                publish = traced(self._tracer, outbox.database.service, publish)
            await relays.enter_async_context(outbox.relay(publish))
        if topology.consumed:
            shared = Shared(
                settings=settings,
                topology=topology,
                inputs=inputs,
                ownership=self._ownership,
                watches=self._watches,
                limits=SizeLimits(),
                metrics=self.metrics,
                stores=stores,
                losses=losses,
                name=identity.name,
                network=self.network,
                url=self.url,
                on_disk=on_disk,
                failed=self._fail,
                tracer=self._tracer,
            )
            self._member = await prepare(shared, stop)
            await self._member.join(stop, self._fail)
        await self._sinks.start(settings, self._publisher, self.metrics, stop, self._fail, self._tracer)
        self._open = True
        stop.add(self._drain, self.DRAIN_S + CLOSE_S)  # runs first: requests in flight need all other parts
        log.info("worker started group=%s url=%s", KafkaNames(settings.topic_prefix).group(topology.group), self.url)

    async def stop(self) -> None:
        """Answers waiting requests, finishes the current batch, leaves the group, closes the state."""
        self.stopping = True
        self._watches.touch_all()
        await self._stop.run()
        log.info("worker stopped")

    async def ended(self) -> None:
        """Returns when the worker cannot continue; `failure` says why."""
        await self._ended.wait()

    def read(self, table: Table[M], key: str) -> M | None:
        """The committed row of `key`, from the store of this worker. Raises `KeyNotOwned`."""
        raw_key = key.encode()
        partition = partition_of(raw_key, self.settings.partitions)
        try:
            store = self._ownership.store(table.name, partition)
        except PartitionNotOwned as error:
            raise KeyNotOwned(str(error)) from None
        if self._member is None or not self._member.confirmed:
            raise KeyNotOwned("the group has not confirmed the membership of this worker for a session")
        if (cached := self._ownership.cached.get(table, partition, key)) is not None:
            return cached
        raw = store.get(raw_key)
        return None if raw is None else table.model.from_json(raw)

    def owns(self, key: str) -> bool:
        """Whether this worker owns the partition of `key` and has processed its backlog."""
        return self._ownership.settled(partition_of(key.encode(), self.settings.partitions))

    def submit(self, table: Table[Any], key: str, decide: Callable[[Context], T]) -> asyncio.Future[T]:
        """Runs `decide` in the loop. See `runtime.hosting.Host`."""
        if self._member is None:
            raise KeyNotOwned("not started")
        result = self._member.engine.submit(table, key, decide)
        self._produce_timeout.bound(result, _not_acknowledged)
        return result

    def read_stale(self, table: Table[M], key: str) -> StaleRow[M] | None:
        """The row of `key` in the store of this worker, as owner or standby; `None` if there is none."""
        if self._member is None:
            return None
        raw_key = key.encode()
        partition = partition_of(raw_key, self.settings.partitions)
        store = self._member.stores.peek(table.name, partition)
        raw = None if store is None else store.get(raw_key)
        if raw is None:
            return None
        owned = self._ownership.owns(partition) and self._member.confirmed
        age_s = 0.0 if owned else self._member.standbys.age(table.name, partition)
        return StaleRow(table.model.from_json(raw), age_s)

    def watch(self, table: Table[Any], key: str, touched: Callable[[], object] | None = None) -> Watch:
        return self._watches.watch(table, key, touched)

    def owner(self, key: str) -> URL | None:
        """Base URL of the worker that owns the partition of `key`, as of the last rebalance; may be this one."""
        if self._member is None:
            return None
        app = self._member.app
        owner = app.owners.get(partition_of(key.encode(), self.settings.partitions))
        # Of two workers with one URL, the refused one is not the owner: the fragment makes it compare unequal.
        return owner.with_fragment("accepted") if owner is not None and app.refused else owner

    def standbys(self, key: str) -> Sequence[URL]:
        """Base URLs of the workers with standby replicas of the partition of `key`, as of the last rebalance."""
        if self._member is None:
            return ()
        return self._member.app.standbys.get(partition_of(key.encode(), self.settings.partitions), ())

    async def produce(self, topic: Topic[M], value: M) -> None:
        """Returns when every in-sync replica has the message. Raises `BrokerUnavailable`."""
        if not self._broker_reached:
            raise BrokerUnavailable("the broker is not reached yet")
        await self._publisher.publish(topic, value)

    def readiness(self) -> Mapping[str, Any]:
        """`ready` once the assigned partitions are restored, and the details behind it."""
        member = self._member
        return {
            "ready": self._ready,
            "services": [s.name for s in self.topology.services],
            "url": str(self._http.url) if self._http is not None else "",
            "refused": member.app.refused if member is not None else "",
            "partitions": sorted({tp.partition for tp in self._ownership.partitions}),
            "backlog": sorted(self._ownership.behind),
            "takeover": dict(member.engine.rebalance.progress) if member is not None else {},
            "standby": member.standbys.lag if member is not None else {},
            "stalled": member.watchdog.report() if member is not None else [],
            # Not part of `ready`: other services of the worker still work, and all workers would be unready at once.
            "side_effects": status_by_service(member.engine.side_effects) if member is not None else {},
            "sinks": self._sinks.status(),
            "databases": {database.service: database.status for database in self._databases},
        }

    @property
    def _tracer(self) -> Tracer | None:
        return None if self._tracing is None else self._tracing.tracer

    @property
    def _ready(self) -> bool:
        member = self._member
        owned = self._ownership.running and not self._ownership.starts
        running = owned or not self.topology.consumed
        fit = member is None or not (member.watchdog.stalls or member.app.refused)
        return self._open and running and not self.stopping and fit

    def status(self) -> WorkerStatus:
        """The status of the worker, for metrics."""
        member, settings = self._member, self.settings
        return WorkerStatus(
            group=KafkaNames(settings.topic_prefix).group(self.topology.group),
            guarantee=settings.processing_guarantee,
            revision=settings.build_revision,
            ready=self._ready,
            broker_reachable=None if member is None else member.watchdog.reachable,
            waiting_clients=len(self._watches),
            waiting_commands=0 if member is None else len(member.engine.commands),
            max_requests=settings.max_requests,
            tables={} if member is None else member.stores.sizes(),
            disk=disk_space(settings.state_dir),
        )

    @property
    def _databases(self) -> "list[Database]":
        return [h.database for h in self._hosted if h.database is not None]

    async def _serve(self) -> None:
        app, ports = application(self, self._hosted, self._tracer), {h.port for h in self._hosted}
        self._http = await serve(app, self.settings, ports, self._stop)

    async def _drain(self) -> None:
        """Accepts no new connection, and finishes requests in flight and running side effects."""
        assert self._http is not None
        self._produce_timeout.shorten(self.DRAIN_S)
        side_effects = [] if self._member is None else [self._member.engine.side_effects.drain(self.DRAIN_S)]
        await asyncio.gather(self._http.drain(), *side_effects)

    async def _create_topics(self) -> None:
        """Waits for the broker, finds the redo tables, and creates the topics that are missing."""

        async def create() -> None:
            self.settings = await with_guarantee(self.settings)
            self.topology = await with_redo_tables(self.settings, self.topology)
            await ensure_topics(self.settings, topics_of(self.topology))
            await report_unkept_settings(self.settings, topics_of(self.topology))

        await until_reached(self.settings, create)

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        self._ended.set()


def _not_acknowledged() -> BrokerUnavailable:
    return BrokerUnavailable("the broker did not acknowledge the batch in time")
