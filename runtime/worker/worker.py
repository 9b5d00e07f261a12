"""A worker: services composed in one process around one loop, with their HTTP side. Start, run, stop."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web
from aiokafka.errors import KafkaError
from yarl import URL

from runtime.common.clock import elapsed_s, utc_now
from runtime.common.deadlines import WaitLimit
from runtime.common.partitioning import partition_of
from runtime.common.settings import OnLostRecords, Settings
from runtime.data_loss.losses import LossReporter
from runtime.errors import BrokerUnavailable, KeyNotOwned, PartitionNotOwned
from runtime.faust_adapter.app import App
from runtime.group.offset_migration import migrate_offsets
from runtime.group.reachability import network_identity
from runtime.health.watchdog import Watchdog
from runtime.hosting import ServiceDefinition, StaleRow
from runtime.http.admission import in_hand
from runtime.http.connections import Runner
from runtime.http.server import application
from runtime.kafka.clients import KafkaNames
from runtime.kafka.group_consumer import KafkaGroupConsumer
from runtime.kafka.log_reader import KafkaLogReader
from runtime.kafka.producers import KafkaProducer, KafkaTransactionalProducer
from runtime.kafka.publisher import Publisher
from runtime.kafka.topics import ensure_topics, topics_of
from runtime.loop.checkpoint import AtLeastOnce, Checkpoint, ExactlyOnce
from runtime.loop.engine import Engine
from runtime.loop.ownership import Ownership
from runtime.loop.standby import StandbyReplicas
from runtime.metrics.loop import METRICS, LoopMetrics
from runtime.metrics.side_effects import METRICS as SIDE_EFFECTS
from runtime.metrics.side_effects import shown
from runtime.model.limits import SizeLimits
from runtime.model.records import TopicPartition
from runtime.model.service import Context, Table
from runtime.model.topology import Topology
from runtime.model.watch import Watch, Watches
from runtime.state.restore import Restorer
from runtime.state.rocks import RocksStores
from runtime.worker.identity import WorkerIdentity
from runtime.worker.loss_dead_letters import LossDeadLetters
from schemas.topics import Topic
from schemas.wire import Message

if TYPE_CHECKING:
    from runtime.database.pool import Database

log = logging.getLogger(__name__)

RESTORE_BYTES, FOLLOW_BYTES = 64 * 1024 * 1024, 16 * 1024 * 1024
"""Of changelogs, what waits in memory to be put into stores: when partitions are taken over, and for copies."""

LEAST_BYTES = 64 * 1024
"""Of each partition all the same, for a request to be worth its while."""

_IPV6 = {"127.0.0.1": ("::1",), "localhost": ("::1",), "0.0.0.0": ("::",)}  # noqa: S104
"""By the host of IPv4: what `localhost` may mean to a client, who perhaps tries no second address."""

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class Worker:
    """Implements `runtime.hosting.Host`. Must be made inside a running event loop."""

    # How long each part of a stop may take, so that all of it stays below 10 s though the broker may not answer.
    DRAIN_S = 0.5
    """Requests on connections there are already are answered as ever."""
    ANSWER_S = 2.0
    """A request in hand waits for the broker, from the beginning of the stop; and an effect for the other side."""
    LEAVE_S = 2.5
    """What is in hand is finished, and the group left."""
    CLOSE_S = 0.5
    """Each of the rest."""

    def __init__(self, hosted: Sequence[ServiceDefinition], settings: Settings) -> None:
        self.settings = settings
        self.stopping = False
        self.failure: BaseException | None = None
        self._hosted = hosted
        self.topology = Topology(tuple(h.service for h in hosted))
        self._names = KafkaNames(settings.topic_prefix)
        self.metrics: LoopMetrics = METRICS
        self._ownership = Ownership()
        self._watches = Watches()
        self._ended = asyncio.Event()
        self.network = network_identity()
        """Of this host, to the others of the group."""
        self._url: URL | None = None
        self._open = False
        self._app: App | None = None
        self._watchdog: Watchdog | None = None
        self._announcer: Publisher | None = None
        self._limits = SizeLimits()
        self._patience = WaitLimit(settings.produce_timeout_s)
        self._to_stop: list[tuple[float, Callable[[], Awaitable[None]]]] = []

    @property
    def url(self) -> URL:
        assert self._url is not None, "not started"
        return self._url

    async def start(self) -> None:
        """Returns once HTTP is served and the group is joined; `readiness` tells when partitions are taken over."""
        settings, topology = self.settings, self.topology
        identity = WorkerIdentity(settings.state_dir)
        self._later(identity.release)
        self._stores = stores = RocksStores(settings.state_dir / "tables", settings.state_memory_mb)
        on_disk = stores.on_disk()
        self._later(stores.close)
        await self._serve()
        opened = AsyncExitStack()
        self._at_stop(opened.aclose)
        for database in self._databases:
            await opened.enter_async_context(database.open())
        for lifespan in [h.lifespan for h in self._hosted if h.lifespan is not None]:
            await opened.enter_async_context(lifespan(self))
        await self._reach_broker()
        self._announcer = Publisher(settings, self._patience)
        lost = LossReporter(
            self.metrics,
            stop=settings.on_lost_records is OnLostRecords.STOP,
            failed=self._fail,
            keep=LossDeadLetters(settings, topology, self._announcer.publish_all).keep,
        )
        if topology.consumed:
            await migrate_offsets(settings, topology, lost)
        await self._announcer.start()
        self._at_stop(self._announcer.stop)
        relays = AsyncExitStack()
        self._at_stop(relays.aclose)
        for outbox in [h.outbox for h in self._hosted if h.outbox is not None]:
            await relays.enter_async_context(outbox.relay(self._announcer.publish_all))
        if topology.consumed:
            await self._join(identity, stores, on_disk, lost)
        self._open = True
        self._at_stop(self._stop_serving, self.ANSWER_S + self.CLOSE_S)  # first: requests in hand still need the rest
        log.info("worker started group=%s url=%s", self._names.group(topology.group), self.url)

    async def _join(self, identity: WorkerIdentity, stores: RocksStores, on_disk: set[int], lost: LossReporter) -> None:
        """Joins the group of the composition, which a worker does whose services consume anything."""
        settings, topology = self.settings, self.topology
        stores_in_all = max(1, len(topology.tables) * settings.partitions)  # not every service has any
        broker = KafkaLogReader(
            settings, topology.group, partition_bytes=max(LEAST_BYTES, RESTORE_BYTES // stores_in_all)
        )
        self._at_stop(broker.stop)
        notes: dict[TopicPartition, str] = {}
        changelogs = [table.changelog for table in topology.tables.values()]
        logs = Restorer(broker, lost, changelogs, notes, settings.partitions)
        # A topic just made is known before its leaders serve: whoever asks them too early waits out a back-off.
        await logs.ends([TopicPartition(topic, p) for topic in topics_of(topology) for p in range(settings.partitions)])
        self._member = member = KafkaGroupConsumer(settings, topology, notes)
        copies_broker = KafkaLogReader(
            settings, topology.group, max_rows=500, partition_bytes=max(LEAST_BYTES, FOLLOW_BYTES // stores_in_all)
        )
        self._at_stop(copies_broker.stop)
        self._copies = StandbyReplicas(topology, stores, copies_broker, self.metrics, member.confirmed, lost)
        self._at_stop(self._copies.stop)
        checkpoint = self._new_checkpoint(identity.name, member, notes)
        await checkpoint.start()
        self._at_stop(checkpoint.stop)
        self._engine = engine = Engine(
            topology,
            partitions=settings.partitions,
            session_timeout_s=settings.session_timeout_s,
            ownership=self._ownership,
            watches=self._watches,
            stores=stores,
            logs=logs,
            checkpoint=checkpoint,
            client=member,
            clock=utc_now,
            metrics=self.metrics,
            failed=self._fail,
            limits=self._limits,
            copies=self._copies,
            lost=lost,
            effect_timeout_s=settings.side_effect_timeout_s,
            effect_pause_s=settings.side_effect_longest_pause_s,
        )
        SIDE_EFFECTS.watch(engine.side_effects)
        self._later(partial(SIDE_EFFECTS.leave, engine.side_effects))
        self._app = app = App(settings, topology.group, engine, member, self.url)
        app.assignor.made_with = settings.partitions
        app.assignor.found(topology.consumed, on_disk)
        app.assignor.network = self.network
        self._later(self._ownership.lose)  # also if what follows was cut short: no batch is applied any more
        self._at_stop(engine.stop)
        self._at_stop(app.stop, self.LEAVE_S)
        await app.start()
        self._watchdog = Watchdog(
            engine, self._ownership, member.queued, broker, self.metrics, settings.standstill_s, self._fail
        )
        for watching in (self._watch_app(app), self._watchdog.run()):
            task = asyncio.create_task(watching)
            self._later(task.cancel)

    async def stop(self) -> None:
        """Answers who waits, finishes the batch in hand, leaves the group, closes the state."""
        self.stopping = True
        self._watches.touch_all()
        for most_s, step in reversed(self._to_stop):
            try:
                async with asyncio.timeout(most_s):
                    await step()
            except TimeoutError:
                log.warning("stopping goes on without waiting any longer for=%s", step.__qualname__)
            except Exception:  # the rest is to be stopped all the same
                log.exception("stopping failed")
        self._to_stop.clear()
        log.info("worker stopped")

    async def ended(self) -> None:
        """Returns when the worker cannot go on; `failure` says why."""
        await self._ended.wait()

    def read(self, table: Table[M], key: str) -> M | None:
        """The committed row of `key`, from this worker's own state. Raises `KeyNotOwned`."""
        raw_key = key.encode()
        try:
            store = self._ownership.store(table.name, partition_of(raw_key, self.settings.partitions))
        except PartitionNotOwned as error:
            raise KeyNotOwned(str(error)) from None
        if not self._confirmed:
            raise KeyNotOwned("the group has not confirmed for a session that this worker owns anything")
        raw = store.get(raw_key)
        return None if raw is None else table.model.from_json(raw)

    def holds(self, key: str) -> bool:
        """Whether the key's partition is held here, with all that had been written to it before."""
        return self._ownership.settled(partition_of(key.encode(), self.settings.partitions))

    async def submit(self, table: Table[Any], key: str, decide: Callable[[Context], T]) -> T:
        """Has `decide` run in the loop. See `runtime.hosting.Host`."""
        if self._app is None:
            raise KeyNotOwned("not started")
        try:
            async with self._patience.limit():
                return await self._engine.submit(table, key, decide)
        except TimeoutError:
            raise BrokerUnavailable("the broker did not take the batch in time") from None

    def copy(self, table: Table[M], key: str) -> StaleRow[M] | None:
        """The row of `key` as this worker has it, though it may not own the partition."""
        if self._app is None:
            return None
        raw_key = key.encode()
        partition = partition_of(raw_key, self.settings.partitions)
        store = self._stores.peek(table.name, partition)
        raw = None if store is None else store.get(raw_key)
        if raw is None:
            return None
        owned = self._ownership.owns(partition) and self._confirmed
        return StaleRow(table.model.from_json(raw), 0.0 if owned else self._copies.age(table.name, partition))

    @property
    def _confirmed(self) -> bool:
        """Whether what this worker owns cannot be another's by now: one that was paused does not know that it is."""
        return elapsed_s() - self._member.confirmed() < self.settings.session_timeout_s

    def watch(self, table: Table[Any], key: str) -> AbstractContextManager[Watch]:
        return self._watches.watch(table, key)

    def owner(self, key: str) -> URL | None:
        """Base URL of the worker that owns the key's partition, as the group last agreed; may be this one."""
        if self._app is None:
            return None
        owner = self._app.owners.get(partition_of(key.encode(), self.settings.partitions))
        # Of two workers of one URL the refused one is not the owner: it must not take itself for it.
        return owner.with_fragment("accepted") if owner is not None and self._app.refused else owner

    def standbys(self, key: str) -> Sequence[URL]:
        """Base URLs of the workers that keep copies of the key's partition, as the group last agreed."""
        if self._app is None:
            return ()
        return self._app.standbys.get(partition_of(key.encode(), self.settings.partitions), ())

    async def produce(self, topic: Topic[M], value: M) -> None:
        """Returns when every in-sync replica has the message. Raises `BrokerUnavailable`."""
        if self._announcer is None:
            raise BrokerUnavailable("the broker is not reached yet")
        await self._announcer.publish(topic, value)

    def readiness(self) -> Mapping[str, Any]:
        """`ready` once the partitions the group gave this worker are taken over."""
        stalled = self._watchdog.report() if self._watchdog is not None else []
        return {
            "ready": self._open and self._running and not self.stopping and not stalled and not self._refused,
            "services": [s.name for s in self.topology.services],
            "url": str(self._url or ""),
            "refused": self._refused,
            "partitions": sorted({tp.partition for tp in self._ownership.partitions}),
            "takeover": dict(self._engine.handover.progress) if self._app is not None else {},
            "standby": self._copies.lag if self._app is not None else {},
            "stalled": stalled,
            # Told, but not decisive: the other services of the worker go on, and every worker would be unready at once.
            "side_effects": shown(self._engine.side_effects) if self._app is not None else {},
            "databases": {database.service: database.unavailable or "open" for database in self._databases},
        }

    @property
    def _running(self) -> bool:
        """Whether it has taken over what it is to; a worker that consumes nothing has nothing to take over."""
        return self._ownership.running or not self.topology.consumed

    @property
    def _refused(self) -> str:
        """Why the group gives this worker nothing; empty if it does not refuse it."""
        return "" if self._app is None else self._app.refused

    @property
    def _databases(self) -> "list[Database]":
        return [h.database for h in self._hosted if h.database is not None]

    def _later(self, release: Callable[[], object]) -> None:
        async def step() -> None:
            release()

        self._at_stop(step)

    def _at_stop(self, step: Callable[[], Awaitable[None]], most_s: float = CLOSE_S) -> None:
        self._to_stop.append((most_s, step))

    async def _stop_serving(self) -> None:
        """Takes no new connection, answers what is in hand, and has effects finished.

        Connections stay until the end: a request that was under way as its connection closed would break. What comes on
        one is answered, with 503 once partitions are gone, and the answer says that it was the last.
        """
        self._patience.hurry(self.ANSWER_S)
        side_effects = [] if self._app is None else [self._engine.side_effects.finish(self.ANSWER_S)]
        await asyncio.gather(self._answer(), *side_effects)

    async def _answer(self) -> None:
        await self._runner.drain(self.DRAIN_S)
        while in_hand(self._runner.app):  # noqa: ASYNC110 - as long as the step may take
            await asyncio.sleep(self._runner.LOOK_S)

    async def _serve(self) -> None:
        """Opens the HTTP port before anything else, so that it is known, and so that health can be asked for."""
        self._runner = Runner(application(self, self._hosted), shutdown_timeout=self.CLOSE_S)
        await self._runner.setup()
        self._at_stop(self._runner.cleanup, 2 * self.CLOSE_S)
        await web.TCPSite(self._runner, self.settings.http_host, self.settings.http_port, backlog=1024).start()
        port: int = self._runner.addresses[0][1]
        self._url = self.settings.base_url(port)
        if self.settings.http_port:  # one that is to have any port, as in tests, must not take one of a name
            for wanted in {h.port for h in self._hosted} - {0, port}:
                await self._serve_also(wanted)

    async def _serve_also(self, port: int) -> None:
        """Listens on the port of a service, too; on IPv6 as well where the host has one address of each kind."""
        host = self.settings.http_host
        for name in (host, *_IPV6.get(host, ())):
            try:
                await web.TCPSite(self._runner, name, port, backlog=1024).start()
            except OSError as error:
                if name == host:
                    log.warning("port not taken port=%d error=%s; the services answer at %s", port, error, self.url)
                    return
                log.debug("no IPv6 port=%d error=%s", port, error)
        log.info("listens as well port=%d", port)

    async def _reach_broker(self) -> None:
        """Waits for the broker, and makes the topics that are missing there."""
        while True:
            try:
                await ensure_topics(self.settings, topics_of(self.topology))
            except (KafkaError, OSError) as error:
                log.warning("broker not reached servers=%s error=%r", self.settings.kafka_bootstrap_servers, error)
                await asyncio.sleep(1)
            else:
                return

    def _new_checkpoint(
        self, instance: str, member: KafkaGroupConsumer, notes: Mapping[TopicPartition, str]
    ) -> Checkpoint:
        settings, group = self.settings, self.topology.group
        if settings.at_least_once:
            return AtLeastOnce(
                lambda: KafkaProducer(settings, self._limits),
                member.commit,
                settings.transaction_timeout_s,
                lambda: self._confirmed,
            )
        return ExactlyOnce(
            lambda turn: KafkaTransactionalProducer(settings, group, f"{group}-{instance}-{turn}", self._limits, notes),
            settings.transaction_timeout_s,
        )

    async def _watch_app(self, app: App) -> None:
        """Notices when Faust gives up: an exception nobody handled, in the loop or in the consumer."""
        await app.wait_until_stopped()
        self._fail(app.crash_reason or RuntimeError("the Faust app stopped"))

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        self._ended.set()
