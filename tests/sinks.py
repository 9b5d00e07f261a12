"""In-memory ports of a sink: logs, a group member, and a database that fails as it is told."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from runtime.data_loss.losses import LossReporter
from runtime.errors import DatabaseUnavailable, OffsetsMoved, PositionOutOfRange, RowsRejected
from runtime.metrics.loop import LoopMetrics
from runtime.metrics.sink import SinkMetrics
from runtime.model.records import TopicPartition
from runtime.model.sink import Sink
from runtime.sink.engine import SinkEngine
from runtime.sink.placement import LogChange, LogState, SinkPosition, StoredPosition, place
from runtime.sink.ports import Fetched, Polled

TOPIC = "orders"
POISON = b"poison"
"""Value of a record that the database rejects, but for its bytes."""
VENOM = b"venom"
"""Value of a record that the database rejects in any form."""
RAW = "raw"


class Logs:
    """Partitions of a topic."""

    def __init__(self, partitions: int = 2) -> None:
        self.log_id = "cluster/1"
        self.start = dict.fromkeys([TopicPartition(TOPIC, p) for p in range(partitions)], 0)
        self.records = {tp: [] for tp in self.start}

    def append(self, partition: int, *values: bytes, **more) -> None:
        log = self.records[TopicPartition(TOPIC, partition)]
        for value in values:
            log.append(Fetched(len(log), 0, None, value, **more))

    def recreate(self, log_id: str) -> None:
        self.log_id = log_id
        self.records = {tp: [] for tp in self.records}


class MemoryConsumer:
    """A member of the group; tests assign its partitions. Implements `SinkConsumer`."""

    def __init__(self, logs: Logs, most: int = 3) -> None:
        self.generation = 0
        self._logs = logs
        self._most = most
        self._assigned: list[TopicPartition] = []
        self._positions: dict[TopicPartition, int] = {}

    def assign(self, *partitions: int) -> None:
        self._assigned = [TopicPartition(TOPIC, p) for p in partitions]
        self._positions = {}
        self.generation += 1

    def assignment(self):
        return self._assigned

    async def logs(self, partitions):
        await asyncio.sleep(0)
        logs = self._logs
        return {tp: LogState(logs.log_id, logs.start[tp], len(logs.records[tp])) for tp in partitions}

    async def fetch(self, timeout_s):
        await asyncio.sleep(0)
        found = {}
        for tp, at in self._positions.items():
            if at < self._logs.start[tp]:
                raise PositionOutOfRange(str(tp))
            if records := self._logs.records[tp][at : at + self._most]:
                found[tp] = records
                self._positions[tp] = records[-1].offset + 1
        return Polled(found, dict(self._positions), {tp: len(self._logs.records[tp]) for tp in self._positions})

    def seek(self, positions):
        self._positions = dict(positions)


class MemoryDatabase:
    """Rows and offsets that change together. Implements `SinkDatabase`.

    Arguments:
        compares: whether the advance of the offsets is a compare-and-set.
        together: whether rows and offsets are committed at once.
    """

    def __init__(self, *, compares: bool = True, together: bool = True) -> None:
        self.rows: list[tuple] = []
        self.numbers: dict[tuple, int] = {}
        self.offsets: dict[TopicPartition, StoredPosition] = {}
        self.away = False
        self.fails_before = 0
        """Transactions that fail before they are committed."""
        self.fails_after = 0
        """Transactions that are committed, and fail all the same."""
        self.written = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        """Cleared by a test: transactions wait before they begin."""
        self._compares = compares
        self._together = together

    async def place(self, logs):
        await asyncio.sleep(0)
        self._reach()
        result = {}
        for tp, now in logs.items():
            stored = self.offsets.get(tp)
            placement = place(stored, now)
            if placement.change is LogChange.NONE:
                number = stored.log
            else:
                cut = len(self.numbers) if placement.change is LogChange.CUT else 0
                number = self.numbers.setdefault((tp.topic, now.log_id, cut), len(self.numbers))
            self.offsets[tp] = StoredPosition(number, now.log_id, placement.next_offset)
            result[tp] = SinkPosition(number, placement.next_offset), placement
        return result

    @asynccontextmanager
    async def transaction(self, moves):
        """As with row locks: of two transactions that move the same offsets, the second finds them moved."""
        self.written.set()
        await self.go_on.wait()
        self._reach()
        self._compare(moves)
        rows: list[tuple] = []
        yield rows
        await asyncio.sleep(0)
        if any(value == VENOM or (value == POISON and form != RAW) for *_, value, form in rows):
            raise RowsRejected("poison")
        self._reach()
        if self.fails_before:
            self.fails_before -= 1
            raise DatabaseUnavailable("before the commit")
        self._compare(moves)
        self.rows += rows
        if not self._together and self.fails_after:
            self.fails_after -= 1
            raise DatabaseUnavailable("between rows and offsets")
        for tp, move in moves.items():
            self.offsets[tp] = StoredPosition(move.log, self.offsets[tp].log_id, move.next_offset)
        if self.fails_after:
            self.fails_after -= 1
            raise DatabaseUnavailable("after the commit")

    def _compare(self, moves) -> None:
        for tp, move in moves.items():
            known = self.offsets[tp]
            if self._compares and (known.log, known.next_offset) != (move.log, move.expected):
                raise OffsetsMoved(str(tp))

    def _reach(self) -> None:
        if self.away:
            raise DatabaseUnavailable("away")


async def _write(rows, slices) -> None:
    await asyncio.sleep(0)
    for prepared in slices:
        rows += prepared


SINK = Sink(
    topics=(TOPIC,),
    prepare=lambda records: [(r.log, r.partition, r.offset, r.value, "whole") for r in records],
    prepare_raw=lambda r: [(r.log, r.partition, r.offset, r.value, RAW)],
    write=_write,
)


class Worker:
    """An engine with its consumer."""

    def __init__(self, logs: Logs, database: MemoryDatabase, *partitions: int, sink: Sink = SINK) -> None:
        self.consumer = MemoryConsumer(logs)
        self.letters = []
        self.losses = LossReporter(LoopMetrics(CollectorRegistry()))
        self.engine = SinkEngine(
            "history",
            sink,
            self.consumer,
            database,
            self._publish,
            clock=lambda: datetime(2026, 11, 29, tzinfo=UTC),
            losses=self.losses,
            metrics=SinkMetrics(CollectorRegistry()),
        )
        self.engine.CHECK_S = self.engine.LINGER_S = 0.0
        self.consumer.assign(*partitions)

    async def _publish(self, writes):
        await asyncio.sleep(0)
        self.letters += writes

    async def step(self) -> None:
        """A step as `run` makes it, without its pauses."""
        try:
            await self.engine.step()
        except (DatabaseUnavailable, OffsetsMoved, PositionOutOfRange):
            await self.engine.abandon()

    async def drain(self, steps: int = 40) -> None:
        """Steps until all that is in its partitions is stored."""
        for _ in range(steps):
            await self.step()
