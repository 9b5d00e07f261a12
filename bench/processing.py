"""Measures what the processing of an order costs: CPU time an order of each stage, without HTTP and without a broker.

Runs the engine of the composed core on ports in memory. Each batch places orders as commands, as HTTP handlers do;
their verdicts and decisions are fused. What the batch writes to topics that the worker reads comes back with the next
poll, as it does from Kafka, and is skipped. Rows are applied to stores in memory, or in RocksDB.

    python -m bench.processing [--orders 20000] [--batch 50] [--rocks] [--profile 40]

Ids, times and batches are always the same, so two revisions must print the same digest of everything they write:

    python -m bench.processing --orders 2000 --digest
"""

import argparse
import asyncio
import cProfile
import hashlib
import json
import pstats
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import uvloop
from prometheus_client import CollectorRegistry

from ecosystem.services import CORE, build
from orders_service.commands import place
from orders_service.state import ORDERS_VIEW
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.loop.engine import Engine, EngineSettings, Ports
from runtime.loop.overlay import BatchOverlay
from runtime.loop.ownership import Ownership
from runtime.loop.partitions import Partitions
from runtime.loop.process import BatchProcessor
from runtime.metrics.loop import LoopMetrics
from runtime.model.records import Header, LastOffsets, Membership, Offsets, TopicPartition, Write, Writes
from runtime.model.topology import Topology
from runtime.model.watch import Watches
from runtime.state.rocks import RocksStores
from runtime.state.stores import MemoryStores
from runtime.worker.gc_tuning import freeze_startup_objects
from schemas.messages import Order, ProductEvent, ProductEventKind, StockLevel
from schemas.topics import PRODUCTS, WAREHOUSE_INVENTORY

PARTITIONS = 4
PRODUCTS_ON_OFFER = 64
CUSTOMERS = 5000
WARM_UP = 2000
"""Orders before the measurement: caches fill, and each partition and table has been written to."""
_START = datetime(2026, 1, 1, tzinfo=UTC)


class Message(NamedTuple):
    """A record as the consumer fetches it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    unreadable: None = None


class Log:
    """The partitions of a broker, the group consumer and the checkpoint of the only worker: all in memory."""

    transactional = True

    def __init__(self, consumed: Sequence[str]) -> None:
        self.now = _START
        self._ends: dict[TopicPartition, int] = {}
        self._positions = {TopicPartition(topic, p): 0 for topic in consumed for p in range(PARTITIONS)}
        self._waiting: dict[TopicPartition, list[Message]] = {}
        self.read = self.written = self.partitions = 0
        """Since `count`: records fetched, records written, and partitions written to."""
        self.seconds = 0.0
        """CPU seconds of commits: not those of the engine."""
        self._written = asyncio.Event()
        self.digest = hashlib.sha256()
        self.digesting = False

    def count(self) -> None:
        self.read = self.written = self.partitions = 0

    # The checkpoint.

    async def commit(self, writes: Writes, membership: Membership) -> LastOffsets:
        start = time.process_time()
        ends = self._commit(writes)
        self._written.set()
        self.seconds += time.process_time() - start
        return ends

    def _commit(self, writes: Writes) -> LastOffsets:
        ends: dict[TopicPartition, int] = {}
        for write in (*writes.changelog, *writes.outputs):
            ends[write[:2]] = self._append(write)  # type: ignore[index]
        self.written += len(writes.changelog) + len(writes.outputs)
        self.partitions += len(ends)
        if self.digesting:
            offsets = sorted(writes.offsets.items())
            self.digest.update(repr(([tuple(w) for w in writes.changelog], writes.outputs, offsets)).encode())
        for tp in ends:  # the marker of the transaction
            self._ends[TopicPartition(*tp)] += 1
        return ends

    def _append(self, write: Write) -> int:
        tp = TopicPartition(write.topic, write.partition)
        offset = self._ends.get(tp, 0)
        self._ends[tp] = offset + 1
        if tp in self._positions:
            milliseconds = int(self.now.timestamp() * 1000)
            message = Message(offset, milliseconds, write.key, write.value, tuple(write.headers))
            self._waiting.setdefault(tp, []).append(message)
        return offset

    async def flush(self) -> LastOffsets:
        return {}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    # The group consumer.

    async def fetch(self, timeout_s: float) -> Mapping[TopicPartition, Sequence[Message]]:
        while not self._waiting:
            self._written.clear()
            await self._written.wait()
        fetched, self._waiting = self._waiting, {}
        for tp, messages in fetched.items():
            self.read += len(messages)
            self._positions[tp] = messages[-1].offset + 1
        return fetched

    def polled(self, *, in_vain: bool) -> None: ...

    def positions(self) -> Offsets:
        return dict(self._positions)

    def seek(self, positions: Offsets) -> None:
        self._positions.update(positions)

    def pause(self) -> None: ...

    def silence(self) -> float:
        return 0.0

    def rejoin(self) -> None: ...


class Stopwatch:
    """CPU seconds of functions, measured by wrappers around them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, stage: str, owner: Any, name: str) -> None:
        """Replaces a function by one that adds its time to a stage."""
        function = getattr(owner, name)
        seconds, clock = self.seconds, time.thread_time
        seconds.setdefault(stage, 0.0)

        def measured(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[stage] += clock() - start

        setattr(owner, name, measured)


STAGES: tuple[tuple[str, Any, str], ...] = (
    ("process", BatchProcessor, "process"),
    ("encode rows", BatchOverlay, "rows"),
    ("changelog records", BatchOverlay, "writes"),
    ("apply", Partitions, "apply"),
    ("wake", Partitions, "changed"),
    ("count", LoopMetrics, "batch"),
)


class Bench:
    """The composed core on a log in memory.

    Arguments:
        batch: orders of a batch.
        stores: where rows are kept.
    """

    def __init__(self, batch: int, stores: Any) -> None:
        self._batch = batch
        self.topology = Topology(tuple(hosted.service for hosted in build([*CORE], Settings())))
        self.log = log = Log(list(self.topology.consumed))
        ownership = Ownership()
        ports = Ports(log, log, None, stores, self._clock)  # type: ignore[arg-type]  # nothing is restored
        self.engine = Engine(
            self.topology,
            EngineSettings(PARTITIONS, session_timeout_s=1e9),
            ports,
            ownership=ownership,
            watches=Watches(),
            metrics=LoopMetrics(CollectorRegistry()),
            failed=_raise,
        )
        opened = {(t, p): stores.open(t, p) for t in self.topology.tables for p in range(PARTITIONS)}
        self.engine.loop.partitions.own(Membership(1, "bench"), log.positions(), {}, opened)
        self.engine.poller.read_from(log.positions())
        self._number = 0
        self.seconds = self.poll_seconds = 0.0
        """CPU seconds of the engine, and those of them that polls took."""
        self.profile: cProfile.Profile | None = None

    def _clock(self) -> datetime:
        return self.log.now

    async def start(self) -> None:
        """Announces products and their stock."""
        for number in range(PRODUCTS_ON_OFFER):
            code = f"product-{number}"
            event = ProductEvent(
                event_id=f"e-{number}",
                kind=ProductEventKind.CREATED,
                code=code,
                name=code,
                price="12.5",
                version=1,
                at=_START,
            )
            for topic, message in (
                (PRODUCTS, event),
                (WAREHOUSE_INVENTORY, StockLevel(product=code, count=10**9)),
            ):
                key = code.encode()
                write = Write(topic.name, partition_of(key, PARTITIONS), key, message.to_json())
                await self.log.commit(Writes([], [write], {}), Membership(1, "bench"))
        await self._step()

    async def place(self, orders: int) -> None:
        """Places orders, and processes them until all are decided."""
        for first in range(0, orders, self._batch):
            self.log.now += timedelta(milliseconds=100)
            batch = [self._next_order() for _ in range(min(self._batch, orders - first))]
            own, start = self.log.seconds, time.process_time()
            with self._profiled():
                waiting = [
                    asyncio.ensure_future(self.engine.submit(ORDERS_VIEW, order.id, partial(place, order)))
                    for order in batch
                ]
                await asyncio.sleep(0)
                await self._step()
                answers = await asyncio.gather(*waiting)
            self.seconds += time.process_time() - start - (self.log.seconds - own)
            if any(answers):
                raise RuntimeError("an order existed already")

    @contextmanager
    def _profiled(self) -> Iterator[None]:
        if self.profile is not None:
            self.profile.enable()
        try:
            yield
        finally:
            if self.profile is not None:
                self.profile.disable()

    def _next_order(self) -> Order:
        self._number += 1
        number = self._number
        return Order(
            id=f"0197c3f2-7d1a-7c3e-8a57-{number:012x}",
            customer_id=number * 7919 % CUSTOMERS,
            product=f"product-{number % PRODUCTS_ON_OFFER}",
            quantity=1 + number % 3,
            price="12.5",
            created_at=self.log.now,
        )

    async def _step(self) -> None:
        start = time.thread_time()
        polled = await self.engine.poller.next()
        self.poll_seconds += time.thread_time() - start
        assert polled is not None
        await self.engine.step(polled)
        self.engine.poller.processed()


def _raise(error: BaseException) -> None:
    raise error


async def run(args: argparse.Namespace, stores: Any, watch: Stopwatch) -> dict[str, Any]:
    """Returns the figures of one run."""
    bench = Bench(args.batch, stores)
    bench.log.digesting = args.digest
    await bench.start()
    await bench.place(WARM_UP)
    freeze_startup_objects()
    bench.log.count()
    watch.seconds.update(dict.fromkeys(watch.seconds, 0.0))
    bench.profile = cProfile.Profile(time.thread_time) if args.profile else None
    bench.seconds = bench.poll_seconds = 0.0
    await bench.place(args.orders)
    if bench.profile is not None:
        pstats.Stats(bench.profile, stream=sys.stderr).sort_stats("tottime").print_stats(args.profile)
    batches = -(-args.orders // args.batch)
    figures: dict[str, Any] = {
        "total µs": 1e6 * bench.seconds / args.orders,
        "poll µs": 1e6 * bench.poll_seconds / args.orders,
    }
    figures |= {f"{stage} µs": 1e6 * seconds / args.orders for stage, seconds in watch.seconds.items()}
    figures["records read an order"] = bench.log.read / args.orders
    figures["records written an order"] = bench.log.written / args.orders
    figures["partitions written a batch"] = bench.log.partitions / batches
    if args.digest:
        figures["digest"] = bench.log.digest.hexdigest()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=20_000, help="orders that are measured (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=50, help="orders of a batch (default: %(default)s)")
    parser.add_argument("--rocks", action="store_true", help="keep rows in RocksDB, not in memory")
    parser.add_argument("--stages", action="store_true", help="also measure each stage, which costs a few µs a batch")
    parser.add_argument("--digest", action="store_true", help="print a digest of all records written")
    parser.add_argument("--profile", type=int, metavar="N", help="print the N functions that took most time")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    args = parser.parse_args()
    watch = Stopwatch()
    if args.stages:
        for stage, owner, name in STAGES:
            if hasattr(owner, name):
                watch.wrap(stage, owner, name)
    with TemporaryDirectory() as folder:
        stores = RocksStores(Path(folder), 16, 1024) if args.rocks else MemoryStores()
        figures = uvloop.run(run(args, stores, watch))
        stores.close()
    if args.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name:<28}{figure if isinstance(figure, str) else format(figure, '10.2f')}")


if __name__ == "__main__":
    main()
