"""Two workers with a sink beside the core: they crash, pause and own the same partitions; their database fails.

The assignment is drawn at random, overlaps included: whatever the group does wrong, records are stored once.
"""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from random import Random

from prometheus_client import CollectorRegistry

from runtime.data_loss.losses import LossReporter
from runtime.errors import PositionOutOfRange
from runtime.metrics.loop import LoopMetrics
from runtime.metrics.sink import SinkMetrics
from runtime.model.records import TopicPartition
from runtime.sink.engine import SinkEngine
from runtime.sink.placement import LogState
from runtime.sink.ports import Fetched, Polled
from schemas.topics import ORDER_VALIDATIONS, ORDERS
from tests.simulation.clock import Process
from tests.simulation.schedule import LAST_FAULT_S
from tests.simulation.world import World
from tests.sinks import SINK, MemoryDatabase

TOPICS = (ORDERS.name, ORDER_VALIDATIONS.name)
WORKERS = 2
FAULTS = ("crash", "pause", "assign", "assign", "away", "fails before", "fails after")


class SimulatedSinkConsumer:
    """Implements `runtime.sink.ports.SinkConsumer` on the logs of the simulated broker."""

    def __init__(self, broker, random):
        self.generation = 0
        self._broker = broker
        self._random = random
        self._assigned = []
        self._positions = {}

    def assign(self, partitions):
        self._assigned, self._positions = list(partitions), {}
        self.generation += 1

    def assignment(self):
        return self._assigned

    async def logs(self, partitions):
        await asyncio.sleep(0.002 * self._random.random())
        logs = {tp: self._broker.log(tp) for tp in partitions}
        return {tp: LogState("", log.start, log.stable) for tp, log in logs.items()}

    async def fetch(self, timeout_s):
        await asyncio.sleep(0.05 * self._random.random())
        found = {}
        for tp, (_, records, behind) in self._broker.fetch_now(self._positions, 5).items():
            if records is None:
                raise PositionOutOfRange(str(tp))
            self._positions[tp] = behind
            if records:
                found[tp] = [Fetched(r.offset, r.timestamp_ms, r.key, r.value, r.headers) for r in records]
        ends = {tp: self._broker.log(tp).stable for tp in self._positions}
        return Polled(found, dict(self._positions), ends)

    def seek(self, positions):
        self._positions = dict(positions)


class SlowDatabase(MemoryDatabase):
    """A database that takes a while for each call, in which anything may happen."""

    def __init__(self, random, **bugs):
        super().__init__(**bugs)
        self._random = random
        self.go_on.wait = self._delay  # type: ignore[method-assign]

    async def _delay(self):
        await asyncio.sleep(0.1 * self._random.random() ** 2)


class SinkWorker:
    """A worker with a sink, as a process."""

    def __init__(self, world, number):
        self.world = world
        self.name = f"sink-{number}"
        self.processes = []
        self.letters = []
        self.start()

    def start(self):
        self.consumer = SimulatedSinkConsumer(self.world.broker, self.world.random)
        engine = SinkEngine(
            "history",
            SINK,
            self.consumer,
            self.world.database,
            self._publish,
            clock=lambda: datetime(2026, 11, 29, tzinfo=UTC),
            losses=LossReporter(LoopMetrics(CollectorRegistry())),
            metrics=SinkMetrics(CollectorRegistry()),
        )
        self.process = Process(self.world.loop, self.name)
        self.processes.append(self.process)
        self.consumer.assign(self.world.some_partitions())
        self.process.start(engine.run())

    async def _publish(self, writes):
        await asyncio.sleep(0.001)
        self.letters += writes


class SinkWorld(World):
    """A world with sinks of orders and verdicts. `bugs` are arguments of `MemoryDatabase`."""

    def __init__(self, schedule, **bugs):
        super().__init__(schedule)
        self.random = Random(f"{schedule.seed} sinks")
        self.database = SlowDatabase(self.random, **bugs)
        self.partitions = [TopicPartition(t, p) for t in TOPICS for p in range(self.settings.partitions)]
        self.sink_faults = Counter()
        self.sinks = []

    def run(self):
        try:
            return super().run()
        finally:
            self.loop.end([process for sink in self.sinks for process in sink.processes])

    async def _play(self):
        self.sinks = [SinkWorker(self, number) for number in range(WORKERS)]
        for _ in range(self.random.randint(3, 12)):
            what = self.random.choice(FAULTS)
            self.loop.at(LAST_FAULT_S * self.random.random(), None, self._sink_fault, what)
        self.loop.at(LAST_FAULT_S + 4, None, self._heal)
        await super()._play()

    def some_partitions(self):
        return [tp for tp in self.partitions if self.random.random() < 0.7]

    def quiet(self):
        return self.loop.now > LAST_FAULT_S + 4 and super().quiet() and not self.missing()

    def missing(self):
        """Records that are not stored although they are still there."""
        stored = {row[:3] for row in self.database.rows}
        found = []
        for tp in self.partitions:
            log, known = self.broker.log(tp), self.database.offsets.get(tp)
            number = known.log if known else -1
            found += [
                (tp, e.offset)
                for e in log.committed()
                if e.offset >= log.start and (number, tp.partition, e.offset) not in stored
            ]
        return found

    def repeated(self):
        """Records that are stored more than once."""
        return [place for place, times in Counter(row[:3] for row in self.database.rows).items() if times > 1]

    def _sink_fault(self, what):
        self.sink_faults[what] += 1
        sink, seconds = self.random.choice(self.sinks), 4 * self.random.random()
        if what == "crash" and sink.process.alive:
            sink.process.crash()
            self._later(seconds, sink.start)
        elif what == "pause" and sink.process.alive and not sink.process.paused:
            sink.process.pause()
            self._later(seconds, sink.process.resume)
        elif what == "assign":
            sink.consumer.assign(self.some_partitions())
        elif what == "away":
            self.database.away = True
            self._later(seconds, setattr, self.database, "away", False)
        elif what == "fails before":
            self.database.fails_before += 1
        elif what == "fails after":
            self.database.fails_after += 1

    def _heal(self):
        first, *others = self.sinks
        first.consumer.assign(self.partitions)
        for sink in others:
            sink.consumer.assign([])


def outcome(world):
    """What a world of sinks has done wrong."""
    found = [f"{tp.topic}[{tp.partition}]@{offset} is not stored" for tp, offset in world.missing()]
    found += [f"record {place} is stored repeatedly" for place in world.repeated()]
    return found if world.settled else [*found, "the sinks do not settle"]
