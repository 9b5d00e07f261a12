"""Services in memory, with virtual time and without a broker: for tests, examples, experiments."""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

from runtime.common.partitioning import partition_of
from runtime.loop.overlay import BatchOverlay
from runtime.loop.process import BatchProcessor
from runtime.loop.timers import DueTimer, Timers
from runtime.model.commands import Command
from runtime.model.progress import Marks
from runtime.model.records import Header, Membership, PolledBatch, Record, TopicPartition, Write
from runtime.model.service import Context, PendingSideEffect, Service, SideEffect, Table
from runtime.model.topology import Topology
from runtime.model.traces import TraceContext
from runtime.state.stores import MemoryStores
from runtime.tracing.batch import BatchTracer
from runtime.tracing.tracer import Tracer
from schemas.topics import Topic
from schemas.wire import Message

M = TypeVar("M", bound=Message)
T = TypeVar("T")

# In the past, so that no time of the real clock is in the past of a test.
_START = datetime(2020, 1, 1, tzinfo=UTC)


class InMemoryWorker:
    """A worker in memory: its services, their state, and positions in their inputs."""

    def __init__(self, services: Iterable[Service], partitions: int, *, fuse: bool, tracer: Tracer | None) -> None:
        self.topology = Topology(tuple(services))
        self.stores = MemoryStores()
        self.timers = Timers(self.topology)
        self.processor = BatchProcessor(self.topology, partitions, self.stores.open, traced=tracer is not None)
        self.batches = None if tracer is None else BatchTracer(tracer)
        self.positions: dict[TopicPartition, int] = {}
        self.fuse = fuse
        self.processed = 0
        self.events: Counter[tuple[str, str]] = Counter()
        """Counted events, by service and event."""
        self.observations: list[tuple[str, str, float]] = []
        """Observed durations: service, stage, seconds."""


class TopologyTestDriver:
    """Runs services on topics in memory, like the class of this name in Kafka Streams.

    Each call returns once all services are idle.

    Arguments:
        services: the services to run.
        partitions: partitions of every topic.
        apart: whether each service has a worker of its own, instead of one worker for all.
        fuse: whether a worker fuses messages that it consumes itself, as a real one does.
        tracer: records spans, if the services are traced.

    >>> from runtime.model.service import Input
    >>> from schemas.messages import StockLevel
    >>> from schemas.topics import WAREHOUSE_INVENTORY, repartition
    >>> COPY = repartition("copier", WAREHOUSE_INVENTORY, "product", lambda level: level.product)
    >>> copier = Service("copier", (Input(WAREHOUSE_INVENTORY, lambda level, ctx: ctx.send(COPY, level)),), (COPY,))
    >>> driver = TopologyTestDriver(copier)
    >>> driver.send(WAREHOUSE_INVENTORY, StockLevel(product="mug", count=3))
    >>> driver.values(COPY)
    [StockLevel(product='mug', count=3)]
    """

    def __init__(
        self,
        *services: Service,
        partitions: int = 4,
        apart: bool = False,
        fuse: bool = True,
        tracer: Tracer | None = None,
    ) -> None:
        self.partitions = partitions
        self.now = _START
        self._marks = Marks()
        self.topics: dict[TopicPartition, list[Record]] = {}
        groups = [[s] for s in services] if apart else [list(services)]
        self.workers = [InMemoryWorker(group, partitions, fuse=fuse, tracer=tracer) for group in groups]

    def send(self, topic: Topic[M], *values: M) -> None:
        """Produces messages from outside, and runs the services."""
        for value in values:
            key = topic.key(value).encode()
            self.write(Write(topic.name, partition_of(key, self.partitions), key, value.to_json()))
        self.run()

    def send_raw(self, topic: Topic[Any], key: bytes | None, value: bytes | None, *headers: Header) -> None:
        """Produces a record of any bytes, and runs the services."""
        self.write(Write(topic.name, partition_of(key or b"", self.partitions), key, value, headers))
        self.run()

    def call(self, table: Table[Any], key: str, decide: Callable[[Context], T], trace: TraceContext | None = None) -> T:
        """Runs a command in the worker of the table, as HTTP handlers do. Returns or raises its result."""
        partition = partition_of(key.encode(), self.partitions)
        worker = next(w for w in self.workers if table.name in w.topology.tables)
        command = Command(worker.topology.holders[table.name], partition, decide)
        command.trace = trace
        self._process(worker, PolledBatch([], {}, Membership(1, "in-memory"), [command]), [])
        self.run()
        if isinstance(command.result, Exception):
            raise command.result
        return cast("T", command.result)

    def advance(self, by: timedelta) -> None:
        """Advances the time; due timers fire, each at its time."""
        end = self.now + by
        while (at := min((t for w in self.workers if (t := w.timers.next())), default=None)) and at <= end:
            self.now = max(self.now, at)
            self.run()
        self.now = end

    def values(self, topic: Topic[M]) -> list[M]:
        """The messages of a topic, by partition, in order within each."""
        return [topic.model.from_json(r.value) for r in self.records(topic.name) if r.value is not None]

    def records(self, topic: str) -> list[Record]:
        return [r for tp in sorted(self.topics) if tp.topic == topic for r in self.topics[tp]]

    def row(self, table: Table[M], key: str) -> M | None:
        """A row of a table, in any partition."""
        for worker in self.workers:
            if table.name in worker.topology.tables:
                for partition in range(self.partitions):
                    raw = worker.stores.open(table.name, partition).get(key.encode())
                    if raw is not None:
                        return table.model.from_json(raw)
        return None

    def pending(self, effect: SideEffect[M]) -> dict[str, M]:
        """The enqueued side effects of a kind: payloads by key."""
        payloads: dict[str, M] = {}
        for worker in self.workers:
            for service in worker.topology.services:
                for partition in range(self.partitions) if effect in service.side_effects else ():
                    for key, raw in worker.stores.open(service.pending.name, partition).items():
                        payloads[key.decode()] = effect.model.from_json(PendingSideEffect.from_json(raw).payload)
        return payloads

    def write(self, write: Write) -> None:
        """Appends a record to a topic, without running the services."""
        log = self.topics.setdefault(TopicPartition(write.topic, write.partition), [])
        milliseconds = int(self.now.timestamp() * 1000)
        log.append(Record(write.topic, write.partition, len(log), milliseconds, write.key, write.value, write.headers))

    def run(self) -> None:
        """Lets the workers poll, process, commit and apply until all are idle."""
        while any([self._step(worker) for worker in self.workers]):
            pass

    def _step(self, worker: InMemoryWorker) -> bool:
        polled = self._poll(worker)
        due = worker.timers.due(self.now, limit=1000)
        if not polled.positions and not due:
            return False
        self._process(worker, polled, due)
        return True

    def _process(self, worker: InMemoryWorker, polled: PolledBatch, due: list[DueTimer]) -> None:
        trace = None if worker.batches is None else worker.batches.batch(polled)
        batch = worker.processor.process(polled, due, self.now, lambda *_: worker.fuse, trace)
        worker.processed += batch.processed
        _check_declared(worker.topology, batch)
        worker.events += batch.events
        worker.observations += batch.observations
        rows = batch.rows()
        for write in batch.outputs:
            self.write(write)
        for (table, partition), changed in rows.items():
            store = worker.stores.open(table, partition)
            store.apply(changed, (store.offset or 0) + len(changed))
            worker.timers.apply(table, partition, changed)
        worker.positions.update(batch.offsets)
        if trace is not None:
            trace.committed()

    def _poll(self, worker: InMemoryWorker) -> PolledBatch:
        records: list[Record] = []
        positions: dict[TopicPartition, int] = {}
        for tp, log in self.topics.items():
            position = worker.positions.get(tp, 0)
            if tp.topic in worker.topology.consumed and position < len(log):
                readers = worker.topology.readers[tp.topic]
                waiting = [r._replace(processed_by=self._marks.services(r.headers) & readers) for r in log[position:]]
                records += [r for r in waiting if r.processed_by != readers]
                positions[tp] = len(log)
        return PolledBatch(records, positions, Membership(1, "in-memory"))


def _check_declared(topology: Topology, batch: BatchOverlay) -> None:
    """Raises `ValueError` for an event or stage that its service does not declare: metrics would lack its zero."""
    events = {(service.name, event) for service in topology.services for event in service.all_events}
    stages = {(service.name, stage) for service in topology.services for stage in service.stages}
    for service, event in batch.events.keys() - events:
        raise ValueError(f"service {service!r} must list event {event!r} among its events")
    for service, stage in {(service, stage) for service, stage, _ in batch.observations} - stages:
        raise ValueError(f"service {service!r} must list stage {stage!r} among its stages")
