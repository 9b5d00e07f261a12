"""The second step of the loop: processors run on an overlay over the state; what stays here is decided at once."""

import logging
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from runtime.common.partitioning import MisplacedError, check_partition
from runtime.loop.overlay import BatchOverlay, OutputRecord, ProcessorContext
from runtime.loop.ownership import bucket_of
from runtime.loop.timers import DueTimer
from runtime.model.commands import Command
from runtime.model.dead_letters import dead_letter, describe
from runtime.model.limits import SizeLimits
from runtime.model.records import (
    CONSUMED_BY,
    MADE_AT,
    NO_TIMESTAMP,
    NOWHERE,
    Header,
    PolledRecords,
    Record,
    TopicPartition,
    Write,
)
from runtime.model.remedies import remedy_for_key, remedy_for_value, with_remedy
from runtime.model.service import OnKey, Service
from runtime.model.topology import Topology
from runtime.state.stores import Store
from schemas.topics import DEAD_LETTERS, Topic
from schemas.wire import Message

log = logging.getLogger(__name__)

Fuses = Callable[[TopicPartition, int], bool]

MAX_DEPTH = 32
"""Messages that follow from one another in a batch before the next goes by the broker: no cascade holds up a commit."""

WAKE_AGAIN = timedelta(minutes=1)
"""After which a processor that failed when it was woken is woken again."""


class WorkItem(NamedTuple):
    """A readable message, or the key of a tombstone, on its way to the processors of its topic."""

    topic: str
    partition: int
    time: datetime
    subject: Any
    processors: tuple[tuple[Service, Callable[[Any, ProcessorContext], None]], ...]
    depth: int
    record: Record | None  # None: fused, it never left the worker


class BatchProcessor:
    """Turns what was taken into a batch. Reads local state, writes nothing.

    Arguments:
        plan: the worker's services.
        partitions: how many partitions every topic has.
        store: gives the store of a table and partition that is owned.
        limits: how large a message each topic takes. A processor that sends a larger one has failed on its message.
    """

    def __init__(
        self, topology: Topology, partitions: int, store: Callable[[str, int], Store], limits: SizeLimits | None = None
    ) -> None:
        self.topology = topology
        self.partitions = partitions
        self.store = store
        self._limits = SizeLimits() if limits is None else limits
        self._mark: tuple[Header, ...] = ((CONSUMED_BY, topology.group.encode()),)
        self._told: set[str] = set()
        """Topics of which the log has told that records are misplaced: once, as a foreign producer may write many."""

    def decide(
        self,
        taken: PolledRecords,
        due: Iterable[DueTimer],
        now: datetime,
        fuses: Fuses,
    ) -> BatchOverlay:
        """Runs the processors.

        Arguments:
            taken: the records, the positions they bring the worker to, and the calls.
            due: timers whose time has come.
            now: when the batch was taken, UTC.
            fuses: whether a message to this partition under a key of this bucket may be decided here and now, without
                the way by the broker.
        """
        batch = BatchOverlay(self.topology, self.partitions, now, self.store, offsets=taken.positions)
        for timer in due:
            self._wake(batch, timer, fuses)
        for record in taken.records:
            work = self._read(batch, record)
            if work is not None:
                self._follow(batch, [work], fuses)
        for call in taken.calls:
            self._call(batch, call, fuses)
        return batch

    def _read(self, batch: BatchOverlay, record: Record) -> WorkItem | None:
        """The message of a record, or None once the record has gone to the dead letters."""
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
            services = ",".join(s.name for s, _ in self.topology.processors[record.topic])
            self._reject(batch, record, services, str(error))
            if isinstance(error, MisplacedError) and record.topic not in self._told:
                self._told.add(record.topic)
                where = record.topic, record.partition, record.offset
                log.warning("record misplaced topic=%s partition=%d offset=%d error=%s", *where, error)
            return None
        return WorkItem(record.topic, record.partition, time, subject, processors, 0, record)

    @staticmethod
    def _message(record: Record, topic: Topic[Any], value: bytes) -> Message:
        """The message, under its own key. Raises `ValueError` with the cause and the remedy."""
        try:
            message: Message = topic.model.from_json(value)
        except ValueError as error:
            raise ValueError(with_remedy(describe(error), remedy_for_value(value, topic))) from None
        key = topic.key(message)
        if record.key != key.encode():
            cause = f"the message's key is not that of its value, which belongs under {key!r}"
            raise ValueError(with_remedy(cause, remedy_for_key(record, key, topic)))
        return message

    def _tombstone(self, record: Record, topic: Topic[Any]) -> tuple[str, tuple[tuple[Service, OnKey], ...]]:
        """The key, and who takes it. Raises `ValueError` if nobody does, or if there is no readable key."""
        takers = self.topology.tombstones.get(record.topic)
        if not takers:
            raise ValueError(
                f"the message has no value (a tombstone); {topic.name} takes none: write the JSON as value"
            )
        if record.key is None:
            raise ValueError("the message has no value (a tombstone), and no key that would say what it deletes")
        try:
            return record.key.decode(), takers
        except UnicodeDecodeError:
            raise ValueError(
                "the message has no value (a tombstone); its key is no UTF-8 text: nothing has it"
            ) from None

    def _follow(self, batch: BatchOverlay, work: list[WorkItem], fuses: Fuses) -> None:
        """Decides the messages in `work`, and those that follow and stay here, in the order they were sent."""
        for item in work:  # grows while it is walked
            batch.decided += 1
            for service, processor in item.processors:
                turn = ProcessorContext(batch, service, item.partition, item.time)
                error = self._attempt(turn, service, item.topic, partial(processor, item.subject, turn))
                if error is None:
                    self._announce(batch, turn.sent, work, item.depth + 1, fuses, item.time)
                else:
                    self._reject(batch, item.record or self._written(item), service.name, error)

    def _call(self, batch: BatchOverlay, call: Command[Any], fuses: Fuses) -> None:
        batch.decided += 1
        turn = ProcessorContext(batch, call.service, call.partition, batch.now)
        try:
            call.returned = call.decide(turn)
            self._fit(turn)
        except Exception as error:  # for whoever called; nothing of it is kept
            call.returned = error
            return
        turn.keep()
        work: list[WorkItem] = []
        self._announce(batch, turn.sent, work, 1, fuses, batch.now)
        self._follow(batch, work, fuses)

    def _wake(self, batch: BatchOverlay, due: DueTimer, fuses: Fuses) -> None:
        service = due.service
        row = batch.read(service.timers, due.partition, due.key)
        if row is None or row.at != due.at or service.on_timer is None:
            return  # withdrawn or moved meanwhile
        batch.decided += 1
        turn = ProcessorContext(batch, service, due.partition, batch.now)
        turn.schedule(due.key, None)
        error = self._attempt(turn, service, "wake", partial(service.on_timer, due.key, turn))
        if error is not None:
            turn = ProcessorContext(batch, service, due.partition, batch.now)
            turn.schedule(due.key, batch.now + WAKE_AGAIN)
            turn.keep()
        work: list[WorkItem] = []
        self._announce(batch, turn.sent, work, 1, fuses, batch.now)
        self._follow(batch, work, fuses)

    def _announce(
        self,
        batch: BatchOverlay,
        sent: list[OutputRecord],
        work: list[WorkItem],
        depth: int,
        fuses: Fuses,
        time: datetime,
    ) -> None:
        """Sends messages on their way: decided here and now, written, or both.

        `time` is that of what they follow from. One to an internal topic is the same message in another place, and
        keeps it: what is only passed on has not happened when it is.
        """
        for topic, partition, key, value in sent:
            processors = self.topology.processors.get(topic.name, ())
            fused = False
            if processors:
                tp, bucket = TopicPartition(topic.name, partition), bucket_of(key)
                ahead = batch.by_broker.get(tp, ())
                fused = depth < MAX_DEPTH and bucket not in ahead and fuses(tp, bucket)
                if fused:
                    batch.fused += 1
                    made = time if topic.internal else batch.now
                    work.append(WorkItem(topic.name, partition, made, value, processors, depth, None))
                else:
                    batch.by_broker.setdefault(tp, set()).add(bucket)
            if not (fused and topic.internal):
                marked = self._mark if fused else _headers(topic, time)
                batch.announcements.append(Write(topic.name, partition, key.encode(), value.to_json(), marked))

    def _reject(self, batch: BatchOverlay, record: Record, services: str, error: str) -> None:
        batch.dead_letters += 1
        most = self._limits.most(record.topic + DEAD_LETTERS)
        letter = dead_letter(record, services, error, batch.now, most)
        # A topic may have been given more partitions than its dead letters have.
        batch.announcements.append(letter._replace(partition=letter.partition % self.partitions))

    def _attempt(self, turn: ProcessorContext, service: Service, what: str, call: Callable[[], None]) -> str | None:
        """Runs a processor and keeps what it decided; or tells what is wrong: one bad message stops nothing."""
        try:
            call()
            self._fit(turn)
        except Exception as error:
            log.exception("processor failed service=%s on=%s", service.name, what)
            return f"{type(error).__name__}: {error}"
        turn.keep()
        return None

    def _fit(self, turn: ProcessorContext) -> None:
        """Raises `TooLarge` if the broker would not take what was decided, as far as that is known."""
        if not self._limits:
            return
        for topic, partition, key, value in turn.sent:
            write = Write(topic.name, partition, key.encode(), value.to_json(), self._mark)
            self._limits.check(topic.name, write.size)
        for (table, key), row in turn.writes.items():
            if row is not None:
                self._limits.check(self.topology.tables[table].changelog, len(key.encode()) + len(row.to_json()))

    def _written(self, item: WorkItem) -> Record:
        """A fused message as it would have been read, had it gone by the broker."""
        topic = self.topology.consumed[item.topic]
        key, value = topic.key(item.subject).encode(), item.subject.to_json()
        milliseconds = int(item.time.timestamp() * 1000)
        return Record(item.topic, item.partition, NOWHERE, milliseconds, key, value, _headers(topic, item.time))


def _headers(topic: Topic[Any], made: datetime) -> tuple[Header, ...]:
    """Those of a message that goes by the broker."""
    return ((MADE_AT, b"%d" % round(made.timestamp() * 1000)),) if topic.internal else ()


def _time(record: Record, topic: Topic[Any], now: datetime) -> datetime:
    """When a message was made; `now` if nobody said. Raises `ValueError` if what it says is no time."""
    told, ms = "timestamp", record.timestamp_ms
    made = next((value or b"" for name, value in record.headers if name == MADE_AT), None) if topic.internal else None
    if made is not None:
        told = f"header {MADE_AT}"
        if not re.fullmatch(rb"-?[0-9]{1,18}", made):
            raise ValueError(f"its {told} is {_shown(made)}, which is no time: write milliseconds since 1970")
        ms = int(made)
    if ms == NO_TIMESTAMP:
        return now
    try:
        return datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"its {told} is {ms}, which is no time: write milliseconds since 1970") from None


def _shown(raw: bytes) -> str:
    return repr(raw[:40].decode(errors="backslashreplace"))
