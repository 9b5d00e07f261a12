"""Runs processors on an overlay over the state, and fuses messages that this worker consumes itself."""

import logging
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pydantic import ValidationError

from runtime.common.partitioning import MisplacedError, check_partition
from runtime.loop.overlay import BatchOverlay, ProcessorContext
from runtime.loop.ownership import bucket_of
from runtime.loop.timers import DueTimer
from runtime.model.commands import Command
from runtime.model.dead_letters import dead_letter
from runtime.model.inheritance import NOTHING, from_row, inheritable, inheritable_with_trace, without_trace
from runtime.model.limits import SizeLimits
from runtime.model.progress import marks_of
from runtime.model.records import (
    MADE_AT,
    NO_OFFSET,
    NO_TIMESTAMP,
    Header,
    PolledBatch,
    Record,
    TopicPartition,
    Write,
)
from runtime.model.redo import Call
from runtime.model.remedies import remedy_for_key, remedy_for_value, with_remedy
from runtime.model.service import OnKey, Service
from runtime.model.topology import Topology
from runtime.state.row_cache import RowCache
from runtime.state.stores import Store
from runtime.tracing.batch import BatchTrace
from schemas.topics import DEAD_LETTERS, Topic
from schemas.validation import describe_invalid
from schemas.wire import Message

log = logging.getLogger(__name__)

Fuses = Callable[[TopicPartition, int], bool]
"""Whether a message to this partition, under a key of this bucket, may be fused into the batch."""

MAX_DEPTH = 32
"""Fused messages in a row within a batch. The next one goes through Kafka, so that no cascade delays a commit."""

TIMER_RETRY = timedelta(minutes=1)
"""Delay before a timer fires again whose processor failed: a bug is not retried in every batch."""


class WorkItem(NamedTuple):
    """A readable message, or the key of a tombstone, and the processors of its topic."""

    topic: str
    partition: int
    time: datetime
    subject: Any
    processors: tuple[tuple[Service, Callable[[Any, ProcessorContext], None]], ...]
    depth: int
    record: Record | None  # None: a fused message, which was not read from Kafka
    cause: Call | None = None
    inherited: tuple[Header, ...] = NOTHING


class _Route(NamedTuple):
    """What fuses the messages of a consumed topic: its partitions, its processors, the headers of fused messages."""

    partitions: tuple[TopicPartition, ...]
    processors: tuple[tuple[Service, Callable[[Any, ProcessorContext], None]], ...]
    marks: tuple[Header, ...]


class BatchProcessor:
    """Processes a polled batch into an overlay. Reads local state and writes nothing.

    Arguments:
        topology: the services of the worker.
        partitions: partitions of every topic.
        store: returns the store of a table and partition that is owned.
        limits: how large a message each topic accepts. A processor that sends a larger one fails on its input.
        redo: whether to keep what each call sent, for redo records.
        traced: whether outputs inherit the trace contexts of their inputs.
        cached: decoded rows of the stores.
    """

    def __init__(
        self,
        topology: Topology,
        partitions: int,
        store: Callable[[str, int], Store],
        limits: SizeLimits | None = None,
        *,
        redo: bool = False,
        traced: bool = False,
        cached: RowCache | None = None,
    ) -> None:
        self.topology = topology
        self.partitions = partitions
        self.store = store
        self._limits = SizeLimits() if limits is None else limits
        self._redo = redo
        self._cached = cached
        self._inheritable = inheritable_with_trace if traced else inheritable
        self._routes = {
            name: _Route(
                tuple(TopicPartition(name, partition) for partition in range(partitions)),
                processors,
                marks_of(topology.group, topology.joined_readers(name)),
            )
            for name, processors in topology.processors.items()
        }
        self._limited = False
        self._reported: set[str] = set()
        """Topics with a logged misplaced record: one log line each, as a foreign producer may write many."""

    def process(
        self,
        polled: PolledBatch,
        due: Iterable[DueTimer],
        now: datetime,
        fuses: Fuses,
        trace: BatchTrace | None = None,
    ) -> BatchOverlay:
        """Runs the processors of due timers, records and commands, in this order.

        Arguments:
            polled: the records, the new positions, and the commands.
            due: timers that are due.
            now: when the batch was polled, UTC.
            fuses: whether a message may be processed in this batch, without a broker round trip.
            trace: collects the spans of the batch, if it is traced.
        """
        calls: list[Call] | None = [] if self._redo else None
        self._limited = bool(self._limits)  # a limit is discovered by a commit, not while a batch is processed
        batch = BatchOverlay(
            self.topology,
            self.partitions,
            now,
            self.store,
            offsets=polled.positions,
            calls=calls,
            trace=trace,
            cached=self._cached,
        )
        for timer in due:
            self._run_timer(batch, timer, fuses)
        for record in polled.records:
            item = self.read(batch, record)
            if item is not None:
                self._run(batch, [item], fuses)
        for command in polled.commands:
            self._run_command(batch, command, fuses)
        return batch

    def read(self, batch: BatchOverlay, record: Record) -> WorkItem | None:
        """The work item of a record; `None` if the record is unreadable and was dead-lettered."""
        topic = self.topology.consumed[record.topic]
        processors = self.topology.processors[record.topic]
        subject: Message | str
        try:
            if record.unreadable is not None:
                raise ValueError(record.unreadable)  # noqa: TRY301
            time = _time(record, topic, batch.now)
            if record.value is None:
                subject, processors = self._tombstone(record, topic)
            else:
                subject = self._message(record, topic, record.value)
            assert record.key is not None
            if not topic.pinned:
                check_partition(record.key, record.partition, self.partitions)
            elif record.partition >= self.partitions:
                raise ValueError(f"partition {record.partition} has no state: write to 0 to {self.partitions - 1}")  # noqa: TRY301
        except (ValueError, OverflowError) as error:
            if record.processed_by:
                return None  # the services that have processed it have dead-lettered it
            services = ",".join(s.name for s, _ in self.topology.processors[record.topic])
            self._reject(batch, record, services, str(error))
            if isinstance(error, MisplacedError) and record.topic not in self._reported:
                self._reported.add(record.topic)
                where = record.topic, record.partition, record.offset
                log.warning("record misplaced topic=%s partition=%d offset=%d error=%s", *where, error)
            return None
        if record.processed_by:
            processors = tuple((s, p) for s, p in processors if s.name not in record.processed_by)
        inherited = self._inheritable(record.headers) if record.headers else NOTHING
        return WorkItem(record.topic, record.partition, time, subject, processors, 0, record, None, inherited)

    @staticmethod
    def _message(record: Record, topic: Topic[Any], value: bytes) -> Message:
        """Decodes the message and checks its key. Raises `ValueError` with cause and remedy."""
        try:
            message: Message = topic.model.from_json(value)
        except ValidationError as error:
            raise ValueError(with_remedy(describe_invalid(error), remedy_for_value(value, topic))) from None
        key = topic.key(message)
        if record.key != key.encode():
            cause = f"the message's key is not that of its value, which belongs under {key!r}"
            raise ValueError(with_remedy(cause, remedy_for_key(record, key, topic)))
        return message

    def _tombstone(self, record: Record, topic: Topic[Any]) -> tuple[str, tuple[tuple[Service, OnKey], ...]]:
        """Returns the key and its processors. Raises `ValueError` if there are none, or no readable key."""
        processors = self.topology.tombstones.get(record.topic)
        if not processors:
            raise ValueError(
                f"the message has no value (a tombstone); {topic.name} takes none: write the JSON as value"
            )
        if record.key is None:
            raise ValueError("the message has neither a value (a tombstone) nor a key that names the deleted row")
        try:
            return record.key.decode(), processors
        except UnicodeDecodeError:
            raise ValueError(
                "the message has no value (a tombstone); its key is not UTF-8: no row has this key"
            ) from None

    def _run(self, batch: BatchOverlay, work: list[WorkItem], fuses: Fuses) -> None:
        """Processes the messages in `work` and the messages fused from them, in the order they were sent."""
        trace, span = batch.trace, None
        for item in work:  # grows during the iteration
            batch.processed += 1
            topic, partition, time, subject, processors, depth, record, cause, inherited = item
            for service, processor in processors:
                ctx = ProcessorContext(batch, service, partition, time, cause, inherited)
                if trace is not None:
                    span = trace.message(ctx, service.name, topic, partition, record, subject)
                error = self._attempt(ctx, service, topic, processor, subject)
                if span is not None and trace is not None:
                    trace.end(span, ctx, error)
                if error is not None:
                    self._reject(batch, record or self._as_record(item), service.name, error)
                elif ctx.sent:
                    self._send(batch, ctx, work, depth + 1, fuses, time)

    def _run_command(self, batch: BatchOverlay, command: Command[Any], fuses: Fuses) -> None:
        batch.processed += 1
        ctx = ProcessorContext(batch, command.service, command.partition, batch.now)
        trace = batch.trace
        span = None if trace is None else trace.command(ctx, command)
        try:
            command.result = command.process(ctx)
            if self._limited:
                self._check_sizes(ctx)
        except Exception as error:  # raised to the caller; the changes are dropped
            command.result = error
            if span is not None and trace is not None:
                trace.end(span, ctx, type(error).__name__)
            return
        ctx.keep()
        if span is not None and trace is not None:
            trace.end(span, ctx)
        work: list[WorkItem] = []
        self._send(batch, ctx, work, 1, fuses, batch.now)
        self._run(batch, work, fuses)

    def _run_timer(self, batch: BatchOverlay, due: DueTimer, fuses: Fuses) -> None:
        service = due.service
        row = batch.read(service.timer_table, due.partition, due.key)
        if row is None or row.at != due.at:
            return  # cancelled or rescheduled in this batch
        batch.processed += 1
        trace, span = batch.trace, None
        inherited = from_row(row) if trace is not None else without_trace(from_row(row))
        ctx = ProcessorContext(batch, service, due.partition, batch.now, None, inherited)
        ctx.set_timer(due.key, None)
        if trace is not None:
            kind = service.timer_of(due.key)
            span = trace.timer(ctx, service.name, "" if kind is None else kind.name, due.key)
        error = self._attempt(ctx, service, "timer", service.on_timer, due.key)
        if span is not None and trace is not None:
            trace.end(span, ctx, error)
        if error is not None:
            ctx = ProcessorContext(batch, service, due.partition, batch.now)
            ctx.set_timer(due.key, batch.now + TIMER_RETRY, inherited=inherited)
            ctx.keep()
        work: list[WorkItem] = []
        self._send(batch, ctx, work, 1, fuses, batch.now)
        self._run(batch, work, fuses)

    def _send(
        self,
        batch: BatchOverlay,
        ctx: ProcessorContext,
        work: list[WorkItem],
        depth: int,
        fuses: Fuses,
        time: datetime,
    ) -> None:
        """Fuses output records into this batch, writes them to Kafka, or both.

        A repartitioned record keeps `time`, the event time of its source; other records get the time of the batch.
        """
        call = ctx.call
        for topic, partition, key, value, inherited in ctx.sent:
            name, internal, route = topic.name, topic.internal, self._routes.get(topic.name)
            marks: tuple[Header, ...] | None = None  # of a fused message
            if route is not None:
                tp, bucket = route.partitions[partition], bucket_of(key)
                sent_before = batch.through_kafka.get(tp, ())
                if depth < MAX_DEPTH and bucket not in sent_before and fuses(tp, bucket):
                    batch.fused += 1
                    event_time, marks = time if internal else batch.now, route.marks
                    work.append(
                        WorkItem(name, partition, event_time, value, route.processors, depth, None, call, inherited)
                    )
                    if internal and call is None:
                        continue  # nobody needs its bytes
                else:
                    batch.through_kafka.setdefault(tp, set()).add(bucket)
            raw = value.to_json()
            if call is not None:
                batch.keep_sent(call, Write(name, partition, key, raw, _headers(topic, time, inherited)))
            if marks is None:
                batch.outputs.append(Write(name, partition, key, raw, _headers(topic, time, inherited)))
            elif not internal:
                batch.outputs.append(Write(name, partition, key, raw, marks + inherited))

    def _reject(self, batch: BatchOverlay, record: Record, services: str, error: str) -> None:
        batch.dead_letters[record.topic] += 1
        max_bytes = self._limits.max_bytes(record.topic + DEAD_LETTERS)
        letter = dead_letter(record, services, error, batch.now, max_bytes)
        # A topic may have been given more partitions than its dead-letter topic has.
        batch.outputs.append(letter._replace(partition=letter.partition % self.partitions))

    def _attempt(
        self,
        ctx: ProcessorContext,
        service: Service,
        what: str,
        processor: Callable[[Any, ProcessorContext], None],
        subject: Any,
    ) -> str | None:
        """Runs a processor and keeps its changes. Returns the error if it failed, so that others continue."""
        try:
            processor(subject, ctx)
            if self._limited:
                self._check_sizes(ctx)
        except Exception as error:
            log.exception("processor failed service=%s input=%s", service.name, what)
            return f"{type(error).__name__}: {error}"
        ctx.keep()
        return None

    def _check_sizes(self, ctx: ProcessorContext) -> None:
        """Raises `MessageTooLarge` if an output record or row is known to exceed what its topic accepts."""
        for topic, partition, key, value, inherited in ctx.sent:
            route = self._routes.get(topic.name)
            headers = inherited if route is None else route.marks + inherited
            write = Write(topic.name, partition, key, value.to_json(), headers)
            self._limits.check(topic.name, write.size)
        for (table, row_key), row in ctx.writes.items():
            if row is not None:
                size = len(row_key.encode()) + len(row.to_json())
                self._limits.check(self.topology.tables[table].changelog, size)

    def _as_record(self, item: WorkItem) -> Record:
        """A fused message as it would have been polled, had it gone through Kafka."""
        topic = self.topology.consumed[item.topic]
        key, value = topic.key(item.subject).encode(), item.subject.to_json()
        milliseconds = int(item.time.timestamp() * 1000)
        headers = _headers(topic, item.time, item.inherited)
        return Record(item.topic, item.partition, NO_OFFSET, milliseconds, key, value, headers)


def _headers(topic: Topic[Any], event_time: datetime, inherited: tuple[Header, ...]) -> tuple[Header, ...]:
    """The headers of a message that goes through Kafka."""
    return ((MADE_AT, b"%d" % round(event_time.timestamp() * 1000)), *inherited) if topic.internal else inherited


def _time(record: Record, topic: Topic[Any], now: datetime) -> datetime:
    """The event time of a record; `now` if it has none. Raises `ValueError` if it is invalid."""
    field, ms = "timestamp", record.timestamp_ms
    raw = next((value or b"" for name, value in record.headers if name == MADE_AT), None) if topic.internal else None
    if raw is not None:
        field = f"header {MADE_AT}"
        if not re.fullmatch(rb"-?[0-9]{1,18}", raw):
            shown = raw[:40].decode(errors="backslashreplace")
            raise ValueError(f"its {field} is {shown!r}, which is no time: write milliseconds since 1970")
        ms = int(raw)
    if ms == NO_TIMESTAMP:
        return now
    try:
        return datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"its {field} is {ms}, which is no time: write milliseconds since 1970") from None
