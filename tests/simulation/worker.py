"""A simulated worker: the runtime's engine on simulated ports, in a process that can crash and pause."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from prometheus_client import CollectorRegistry

from ecosystem.services import build
from runtime.common.settings import Guarantee, Settings
from runtime.data_loss.losses import LossReporter
from runtime.loop.checkpoint import AtLeastOnce, ExactlyOnce
from runtime.loop.engine import Engine, EngineSettings, Ports
from runtime.loop.ownership import Ownership
from runtime.loop.standby import StandbyReplicas
from runtime.metrics.loop import LoopMetrics
from runtime.model.topology import Topology
from runtime.model.watch import Watches
from runtime.state.restore import Restorer
from runtime.state.resume import Inputs
from runtime.state.stores import MemoryStores
from tests.simulation import courier, messenger, newcomer
from tests.simulation.broker import Broker
from tests.simulation.clock import Process
from tests.simulation.member import SimulatedMember
from tests.simulation.producer import SimulatedProducer, SimulatedTransactionalProducer
from tests.simulation.requests import SimulatedRequests

METRICS = LoopMetrics(CollectorRegistry())
TEST_SERVICES = {"courier": courier.build, newcomer.NAME: newcomer.build, messenger.NAME: messenger.build}


@lru_cache
def settings_of(exactly_once, deadline_s, batch_limit):
    return Settings(
        processing_guarantee=Guarantee.EXACTLY_ONCE if exactly_once else Guarantee.AT_LEAST_ONCE,
        partitions=2,
        session_timeout_s=2.0,
        heartbeat_interval_s=0.5,
        transaction_timeout_s=2.0,
        validation_deadline_s=deadline_s,
        checkin_patience_s=5.0,
        batch_limit=batch_limit,
        unknown_products="pass",
    )


@lru_cache
def topology_of(services, exactly_once, deadline_s):
    settings = settings_of(True, deadline_s, 500)  # services do not know the guarantee
    found = [
        TEST_SERVICES[name](settings) if name in TEST_SERVICES else build([name], settings)[0] for name in services
    ]
    return Topology(tuple(definition.service for definition in found), redo=() if exactly_once else services)


class SimulatedWorker:
    """A worker on one disk: one process after another.

    Arguments:
        ended: called with this worker and the error when a process ended by itself.
        standbys: whether the worker keeps standby replicas.
    """

    exactly_once = ExactlyOnce
    at_least_once = AtLeastOnce
    engine = Engine
    logs = Restorer

    def __init__(self, loop, network, broker, number, topology, settings, trace, ended, *, standbys):
        self.loop = loop
        self.network = network
        self.broker = broker
        self.number = number
        self.topology = self.next_topology = topology
        self.settings = settings
        self.trace = trace
        self.ended = ended
        self.standbys = standbys
        self.catch_up = ()
        """Services that start at the beginning of their inputs."""
        self.stores = MemoryStores()
        self.disks = self.starts = 0
        self.away = 1.0
        self.process = None
        self.live = None
        """The engine of the running process, once it has one."""
        self.stopping = None
        self.ownership = Ownership()
        self.processes = []

    @property
    def running(self):
        return self.process is not None and self.process.alive

    def start(self):
        if self.running:
            return
        self.starts += 1
        self.topology = self.next_topology
        self.live = None
        self.process = Process(self.loop, f"worker {self.number}.{self.starts}")
        self.processes.append(self.process)
        self.stopping = asyncio.Event()
        self.ownership = Ownership()
        self.process.start(self._main(self.process, self.stopping, self.ownership))

    def crash(self, *, wipe=False):
        if self.running:
            self.process.crash()
        if wipe:
            self.stores = MemoryStores()
            self.disks += 1

    def stop(self):
        if self.running:
            self.stopping.set()

    def _clock(self):
        return datetime.fromtimestamp(Broker.START_MS / 1000, UTC) + timedelta(seconds=self.loop.now)

    def _new_checkpoint(self, process, metadata):
        settings, group = self.settings, self.topology.group
        if settings.processing_guarantee is Guarantee.AT_LEAST_ONCE:
            return self.at_least_once(
                lambda: SimulatedProducer(process, self.network, self.broker, group, metadata),
                settings.transaction_timeout_s,
            )
        name = f"{group}-{self.number}-{self.disks}"
        return self.exactly_once(
            lambda turn: SimulatedTransactionalProducer(
                process, self.network, self.broker, group, f"{name}-{turn}", settings.transaction_timeout_s, metadata
            ),
            settings.transaction_timeout_s,
        )

    async def _main(self, process, stopping, ownership):
        """Starts and stops the parts like `runtime.worker.member` and `runtime.faust_adapter.app.App`."""
        failed = asyncio.get_running_loop().create_future()

        def fail(error):
            if not failed.done():
                failed.set_result(error)

        settings, topology = self.settings, self.topology
        requests = SimulatedRequests(process, self.network, self.broker, topology.group, settings.batch_limit)
        metadata = {}
        member = SimulatedMember(process, self.network, self.broker, settings, topology.group, list(topology.consumed))
        checkpoint = self._new_checkpoint(process, metadata)
        try:
            await checkpoint.start()
        except Exception as error:  # like a process that cannot start: it ends and is restarted
            process.alive = False
            self.ended(self, error)
            return
        lost = LossReporter(METRICS)
        standbys = None
        if self.standbys:
            standby_requests = SimulatedRequests(
                process, self.network, self.broker, topology.group, settings.batch_limit
            )
            standbys = StandbyReplicas(topology, self.stores, standby_requests, METRICS, member.confirmed)
        engine = self.live = self.engine(
            topology,
            EngineSettings(
                settings.partitions,
                settings.session_timeout_s,
                side_effect_longest_pause_s=5.0,  # a world ends a minute after its last fault
            ),
            Ports(
                consumer=member,
                checkpoint=checkpoint,
                restorer=self.logs(
                    requests,
                    lost,
                    [t.changelog for s in topology.services for t in s.all_tables],
                    metadata,
                    inputs=Inputs(topology, catch_up=self.catch_up),
                ),
                stores=self.stores,
                clock=self._clock,
                standbys=standbys,
                losses=lost,
            ),
            ownership=ownership,
            watches=Watches(),
            metrics=METRICS,
            failed=fail,
        )
        await member.start(engine)
        batches = asyncio.Queue(maxsize=1)
        working = [
            asyncio.create_task(self._drain(engine, batches)),
            asyncio.create_task(self._process(engine, batches)),
        ]
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait([*working, stop, failed], return_when=asyncio.FIRST_COMPLETED)
        error = failed.result() if failed.done() else None
        for task in working:
            if task.done():
                error = error or task.exception()
        await engine.revoked()
        for task in (*working, stop):
            task.cancel()
        await member.stop()
        await engine.stop()
        if standbys is not None:
            await standbys.stop()
        with contextlib.suppress(Exception):
            await checkpoint.stop()
        process.alive = False
        self.ended(self, error)

    async def _drain(self, engine, batches):
        """Like `runtime.faust_adapter.transport.Consumer`."""
        poller = engine.poller
        while True:
            batch = await poller.next()
            if batch is not None:
                await batches.put(batch)
                await batch.done.wait()
                poller.processed()

    async def _process(self, engine, batches):
        """Like the agent of `runtime.faust_adapter.app.App`."""
        while True:
            await engine.step(await batches.get())
