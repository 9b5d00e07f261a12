"""An overlay over the state stores for one batch: processors read through it and write into it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from heapq import merge
from itertools import islice, takewhile
from typing import Any, NamedTuple, TypeVar

from runtime.common.partitioning import partition_of
from runtime.model import dead_letters, inheritance, replays
from runtime.model.records import NO_OFFSET, Header, Record, TopicPartition, Write, Writes
from runtime.model.redo import Call, Sent, Unit
from runtime.model.service import (
    SUPPRESSED,
    PendingSideEffect,
    RejectedSideEffect,
    ScheduledTimer,
    Service,
    SideEffect,
    Table,
    Timer,
)
from runtime.model.topology import Topology
from runtime.state.row_cache import RowCache
from runtime.state.stores import Store
from runtime.tracing.batch import BatchTrace
from schemas.topics import Topic
from schemas.wire import Message

M = TypeVar("M", bound=Message)
TablePartition = tuple[str, int]


class OutputRecord(NamedTuple):
    """A message that a processor sent, before it is fused or produced."""

    topic: Topic[Any]
    partition: int
    key: bytes
    value: Message
    inherited: tuple[Header, ...] = inheritance.NOTHING


class ProcessorContext:
    """The context of one call of one processor. Implements `runtime.model.service.Context`."""

    __slots__ = (
        "_batch",
        "_cause",
        "_partition",
        "_service",
        "call",
        "dead_lettered",
        "events",
        "inherited",
        "now",
        "observations",
        "sent",
        "time",
        "writes",
    )

    def __init__(
        self,
        batch: "BatchOverlay",
        service: Service,
        partition: int,
        time: datetime,
        cause: Call | None = None,
        inherited: tuple[Header, ...] = inheritance.NOTHING,
    ) -> None:
        self._batch = batch
        self._cause = cause
        self.call: Call | None = None
        self._service = service
        self._partition = partition
        self.time = time
        self.inherited = inherited
        self.now = batch.now
        self.writes: dict[tuple[str, str], Any] = {}
        """Changed rows by table and key; `None` deletes."""
        self.sent: list[OutputRecord] = []
        self.dead_lettered: list[Write] = []
        self.events: list[str] = []
        self.observations: list[tuple[str, float]] = []

    def get(self, table: Table[M], key: str) -> M | None:
        if self.writes and (table.name, key) in self.writes:
            changed: M | None = self.writes[table.name, key]
            return changed
        return self._batch.read(table, self._partition, key)

    def put(self, table: Table[M], key: str, value: M) -> None:
        self.writes[table.name, key] = value

    def delete(self, table: Table[M], key: str) -> None:
        self.writes[table.name, key] = None

    def send(self, topic: Topic[M], value: M) -> None:
        if topic not in self._service.outputs:
            raise ValueError(f"service {self._service.name!r} must list topic {topic.name!r} among its outputs")
        key = topic.key(value).encode()
        partition = partition_of(key, self._batch.partitions)
        self.sent.append(OutputRecord(topic, partition, key, value, self.inherited))

    @contextmanager
    def acting_for(self, inherited: tuple[Header, ...]) -> Iterator[None]:
        if self._batch.trace is None:
            inherited = inheritance.without_trace(inherited)
        own, self.inherited = self.inherited, inherited
        try:
            yield
        finally:
            self.inherited = own

    @property
    def trace(self) -> dict[str, str] | None:
        return None if self._batch.trace is None else inheritance.to_row(self.inherited).get("trace")

    @contextmanager
    def continuing(self, trace: dict[str, str] | None) -> Iterator[None]:
        if trace is None or self._batch.trace is None:
            yield
            return
        headers = tuple((name, value.encode()) for name, value in trace.items())
        with self.acting_for(inheritance.without_trace(self.inherited) + headers):
            yield

    def count(self, event: str) -> None:
        self.events.append(event)

    def observe(self, stage: str, seconds: float) -> None:
        if not replays.is_replayed(self.inherited):
            self.observations.append((stage, max(seconds, 0.0)))

    def schedule(self, timer: Timer, key: str, at: datetime | None) -> None:
        self._check_declared(timer)
        self.set_timer(timer.row_key(key), at, inherited=self.inherited if timer.inherits else inheritance.NOTHING)

    def set_timer(
        self, row_key: str, at: datetime | None, *, inherited: tuple[Header, ...] = inheritance.NOTHING
    ) -> None:
        """Sets or cancels a timer by the key of its row."""
        row = None if at is None else ScheduledTimer(at=at, **inheritance.to_row(inherited))
        self.writes[self._service.timer_table.name, row_key] = row

    def scheduled(self, timer: Timer, after: str = "", limit: int = 100) -> list[str]:
        self._check_declared(timer)
        rows, prefix = self._service.timer_table.name, timer.row_key("")
        changed: dict[str, Message | None] = dict(self._batch.changes.get((rows, self._partition), {}))
        changed |= {key: value for (table, key), value in self.writes.items() if table == rows}
        first = prefix + after
        added = sorted(k for k, v in changed.items() if v is not None and k.startswith(prefix) and k >= first)
        stored = self._batch.store(rows, self._partition).keys(first.encode())
        kept = (key for raw in stored if (key := raw.decode()) not in changed)
        within = takewhile(lambda key: key.startswith(prefix), merge(added, kept, key=str.encode))
        own = (timer.key(key) for key in within if self._service.timer_of(key) is timer)
        return list(islice((key for key in own if key > after), limit))

    def _check_declared(self, timer: Timer) -> None:
        if timer not in self._service.all_timers:
            raise ValueError(f"service {self._service.name!r} must list timer {timer.name!r} among its timers")

    def enqueue(self, effect: SideEffect[M], key: str, payload: M) -> None:
        if effect not in self._service.side_effects:
            raise ValueError(f"service {self._service.name!r} must list {effect.name!r} among its side_effects")
        if replays.suppresses_side_effects(self.inherited):
            self.count(SUPPRESSED)
            return
        raw, known = payload.to_json(), self.get(self._service.pending, key)
        if known is None or (known.effect, known.payload) != (effect.name, raw):  # otherwise it is enqueued already
            pending = PendingSideEffect(effect=effect.name, payload=raw, since=self.now, trace=self.trace)
            self.writes[self._service.pending.name, key] = pending

    def dead_letter(self, key: str, pending: PendingSideEffect, reason: str) -> None:
        """Dead-letters a side effect that was rejected for good."""
        rejected = RejectedSideEffect(key=key, effect=pending.effect, payload=pending.payload)
        topic, milliseconds = self._service.redrive_topic.name, int(self.now.timestamp() * 1000)
        headers = tuple((name, value.encode()) for name, value in (pending.trace or {}).items())
        record = Record(topic, self._partition, NO_OFFSET, milliseconds, key.encode(), rejected.to_json(), headers)
        self.dead_lettered.append(dead_letters.dead_letter(record, self._service.name, reason, self.now))

    def keep(self) -> None:
        """Adds the changes of the processor to the batch, once it has returned."""
        batch, service, partition = self._batch, self._service, self._partition
        if self.writes:
            batch.change(partition, self.writes)
        if batch.calls is not None:
            self.call = Call(Unit(service.name, partition), self._cause)
            batch.calls.append(self.call)
            for letter in self.dead_lettered:
                batch.keep_sent(self.call, letter)
        if self.dead_lettered:
            batch.outputs += self.dead_lettered
            batch.dead_letters[service.redrive_topic.name] += len(self.dead_lettered)
        for event in self.events:
            batch.events[service.name, event] += 1
        for stage, seconds in self.observations:
            batch.observations.append((service.name, stage, seconds))


@dataclass(slots=True)
class BatchOverlay:
    """The changes of one batch. Nothing is visible outside before the batch is committed."""

    topology: Topology
    partitions: int
    now: datetime
    store: Callable[[str, int], Store]
    changes: dict[TablePartition, dict[str, Message | None]] = field(default_factory=dict)
    """Changed rows by table, partition and key; `None` deletes. Changed by `change` alone."""
    outputs: list[Write] = field(default_factory=list)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    processed: int = 0
    fused: int = 0
    through_kafka: dict[TopicPartition, set[int]] = field(default_factory=dict)
    """By partition: key buckets of output records to consumed topics that are not fused."""
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Counted events by service and name."""
    dead_letters: Counter[str] = field(default_factory=Counter)
    """Dead letters by the topic of their messages."""
    observations: list[tuple[str, str, float]] = field(default_factory=list)
    """Observed durations: service, stage, seconds."""
    calls: list[Call] | None = None
    """The calls that the batch keeps, for redo records; `None` if it needs none."""
    trace: BatchTrace | None = None
    """The spans of the batch; `None` without tracing."""
    cached: RowCache | None = None
    """Decoded rows of the stores, as of the batch before."""
    _sent: int = 0
    _rows: dict[TablePartition, dict[str, Any]] = field(default_factory=dict)
    """Rows as of this batch, as far as it has read or changed them; `None`: there is no such row."""

    def read(self, table: Table[M], partition: int, key: str) -> M | None:
        """The row as of this batch: changed by it, or from the store."""
        rows = self._rows.get((table.name, partition))
        if rows is None:
            rows = self._rows[table.name, partition] = {}
        if key not in rows:
            rows[key] = self._committed(table, partition, key)
        row: M | None = rows[key]
        return row

    def _committed(self, table: Table[M], partition: int, key: str) -> M | None:
        """The row before this batch."""
        if self.cached is not None and (cached := self.cached.get(table, partition, key)) is not None:
            return cached
        raw = self.store(table.name, partition).get(key.encode())
        if raw is None:
            return None
        row = table.model.from_json(raw)
        if self.cached is not None:
            self.cached.add(table, partition, key, row)
        return row

    def change(self, partition: int, writes: Mapping[tuple[str, str], Message | None]) -> None:
        """Changes rows of a partition, by table and key; `None` deletes."""
        for (table, key), row in writes.items():
            place = table, partition
            changed = self.changes.get(place)
            if changed is None:
                changed = self.changes[place] = {}
                self._rows.setdefault(place, {})
            changed[key] = self._rows[place][key] = row

    def keep_sent(self, call: Call, write: Write) -> None:
        """Adds a sent record to its call."""
        call.sent.append(Sent(self._sent, write))
        self._sent += 1

    def rows(self) -> dict[TablePartition, dict[bytes, bytes | None]]:
        """Serialized changes by table and partition, without rows created and deleted in the same batch."""
        result: dict[TablePartition, dict[bytes, bytes | None]] = {}
        for (table, partition), changed in self.changes.items():
            store = self.store(table, partition)
            rows: dict[bytes, bytes | None] = {}
            for key, value in changed.items():
                raw = key.encode()
                if value is not None:
                    rows[raw] = value.to_json()
                elif store.get(raw) is not None:
                    rows[raw] = None
            if rows:
                result[table, partition] = rows
        return result

    def writes(self, rows: dict[TablePartition, dict[bytes, bytes | None]]) -> Writes:
        """The changelog records, output records and offsets of the batch."""
        changelog: list[Write] = []
        for (table, partition), changed in rows.items():
            topic = self.topology.tables[table].changelog
            changelog += [Write(topic, partition, key, value) for key, value in changed.items()]
        return Writes(changelog, self.outputs, self.offsets)
