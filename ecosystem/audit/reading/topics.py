"""Reads the topics once, one after the other, up to the end offsets at the start."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from statistics import mode
from types import TracebackType
from typing import Self

from aiokafka import TopicPartition as Physical

from ecosystem.audit.facts import Fact, split_key
from ecosystem.audit.reading.offset_ranges import OffsetRange, offset_ranges
from ecosystem.audit.report import AuditError, MisplacedRecord
from ecosystem.audit.sources import PUBLIC_SOURCES, REJECTED_EFFECTS, TOPICS, FactGroup, Source
from ecosystem.clients.dead_letters.dead_letter import DeadLetter
from ecosystem.clients.reader import partitions_of
from runtime.common.partitioning import MisplacedError, check_partition, partition_of
from runtime.common.settings import Guarantee, Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.kafka.unpacker import FetchedRecord
from runtime.model.records import REPLAYED_FROM, Record
from runtime.model.service import RejectedSideEffect

BUFFER = 32 * 1024 * 1024
"""Bytes of fetched records in memory, of all partitions of a topic together."""

MAX_DECODING_ERRORS = 100
"""Undecodable messages that are reported with their position; all are counted."""

_MIN_FETCH = 64 * 1024
"""Bytes fetched from one partition at least."""
_PAUSE_S = {Guarantee.EXACTLY_ONCE: 0.0, Guarantee.AT_LEAST_ONCE: 2.0}
_MAX_MISPLACED_SHOWN = 5
"""Misplaced records of a topic that are reported: they have one cause, its producer."""

_MARGIN_MS = 60_000
"""Milliseconds before `since` from which records other than orders are read: clocks differ."""

OnProgress = Callable[[int], None]


def _check_rejected_effect(source: Source, r: FetchedRecord) -> None:
    """Raises `ValueError` if a record is not the dead letter of a permanently rejected side effect.

    Other producers may write to the topic, and it also gets dead letters of other messages.
    """
    DeadLetter.of(Record(TOPICS[source], r.partition, r.offset, r.timestamp, r.key, r.value, r.headers))
    RejectedSideEffect.from_json(r.value or b"")


class TopicReader:
    """Reader of the topics of a deployment.

    Arguments:
        settings: broker and prefix.
        guarantee: with `AT_LEAST_ONCE`, pauses between the lookups of end offsets, as workers have no transactions.
        since: records about orders are read from then on; stock, reservations and customers from the beginning.
        transaction_wait: how long to wait for open transactions.
    """

    def __init__(
        self, settings: Settings, guarantee: Guarantee, since: datetime | None, transaction_wait: timedelta
    ) -> None:
        self._settings = settings
        self._names = KafkaNames(settings.topic_prefix)
        self._pause_s = _PAUSE_S[guarantee]
        self._transaction_wait_s = transaction_wait.total_seconds()
        self._since_ms = None if since is None else int(since.timestamp() * 1000)
        self.sources: Mapping[Source, Sequence[Physical]] = {}
        self.ranges: Mapping[Physical, OffsetRange] = {}
        self.first_ms: dict[Physical, int] = {}
        self.unreadable = 0
        """Unreadable messages of public topics."""
        self.partitions = settings.partitions
        """Partitions of the deployment: those of most topics, as an operator may have added some to one topic."""
        self.misplaced = 0
        self.misplaced_shown: list[MisplacedRecord] = []
        """The first of each topic: memory is bounded, whatever others write."""
        self.decoding_errors: list[str] = []
        """Position and cause of the first undecodable messages of public topics."""
        self.undecodable_rows: list[tuple[str, str]] = []
        """Position and cause of all undecodable rows of tables."""

    async def __aenter__(self) -> Self:
        """Looks up topics and offsets. Raises `AuditError` if there is no topic of orders."""
        self.sources = await self._find_topics()
        if Source.ORDERS not in self.sources:
            raise AuditError(
                f"there is no topic {self._names.topic(TOPICS[Source.ORDERS])!r} at "
                f"{self._settings.kafka_bootstrap_servers}: check TOPIC_PREFIX and the brokers"
            )
        counts = sorted(len(tps) for tps in self.sources.values())
        most, self.partitions = counts[-1], mode(counts)
        self._consumer = clients.standalone_consumer(self._settings, max(_MIN_FETCH, BUFFER // most))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._consumer.stop)
            await self._consumer.start()
            partitions = [tp for tps in self.sources.values() for tp in tps]
            found = await offset_ranges(self._consumer, partitions, self._pause_s, self._transaction_wait_s)
            self.ranges = found if self._since_ms is None else await self._since(found)
            self._resources = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    @property
    def size(self) -> int:
        """Number of offsets to read."""
        return sum(one.end - one.start for one in self.ranges.values())

    def is_complete(self, source: Source) -> bool:
        """Whether a topic is read from its first record."""
        return all(self.ranges[tp].start == 0 for tp in self.sources[source])

    def read_from_ms(self, source: Source) -> dict[int, int]:
        """By partition, the time from which its records exist; without partitions that are complete."""
        return {
            tp.partition: max(self.first_ms.get(tp, 2**62), (self._since_ms or 0) - _MARGIN_MS)
            for tp in self.sources.get(source, ())
            if self.ranges[tp].start
        }

    async def records(self, source: Source, on_progress: OnProgress) -> AsyncIterator[tuple[bytes, Fact]]:
        """Yields key and fact of every committed record. Calls `on_progress` with the number of offsets read."""
        todo = {tp: one for tp in self.sources[source] if (one := self.ranges[tp]).start < one.end}
        if not todo:
            return
        consumer = self._consumer
        consumer.assign(list(todo))
        positions = {tp: one.start for tp, one in todo.items()}
        for tp, offset in positions.items():
            consumer.seek(tp, offset)
        while todo:
            for tp, records in (await consumer.getmany(timeout_ms=200, max_records=5000)).items():
                for r in records:
                    if tp in todo and r.offset < todo[tp].end:
                        if r.unreadable is not None and self._is_undecodable(source, r):
                            continue
                        self.first_ms.setdefault(tp, r.timestamp)
                        if self._is_misplaced(source, r):
                            continue
                        try:
                            if source in REJECTED_EFFECTS:
                                _check_rejected_effect(source, r)
                            key, about = split_key(source, r.key or b"\xff", r.value)
                        except ValueError:
                            self.unreadable += 1
                            continue
                        late = r.offset >= todo[tp].late
                        replayed = any(name == REPLAYED_FROM for name, _ in r.headers)
                        yield key, Fact(source, r.partition, r.offset, r.timestamp, late, r.value, about, replayed)
            for tp, position in aiokafka_internals.positions(consumer).items():  # includes control records
                if tp in todo:
                    on_progress(min(position, todo[tp].end) - min(positions[tp], todo[tp].end))
                    positions[tp] = position
                    if position >= todo[tp].end:
                        del todo[tp]
                        consumer.pause(tp)
        consumer.unsubscribe()

    def _is_misplaced(self, source: Source, record: FetchedRecord) -> bool:
        """Whether a record is misplaced. Counts it, and keeps the first of each topic."""
        if source not in PUBLIC_SOURCES or record.key is None:
            return False
        try:
            check_partition(record.key, record.partition, self.partitions)
        except MisplacedError as error:
            topic = TOPICS[source]
            self.misplaced += 1
            if sum(one.topic == topic for one in self.misplaced_shown) < _MAX_MISPLACED_SHOWN:
                key = record.key.decode(errors="backslashreplace")
                belongs = partition_of(record.key, self.partitions)
                found = MisplacedRecord(topic, record.partition, record.offset, key, belongs, str(error))
                self.misplaced_shown.append(found)
            return True
        return False

    def _is_undecodable(self, source: Source, r: FetchedRecord) -> bool:
        """Whether a record with a decoding error has no usable content. Keeps position and cause."""
        position = f"{TOPICS[source]} {r.partition}@{r.offset}"
        if source in PUBLIC_SOURCES:
            last = r.offset if r.last_offset is None else r.last_offset
            self.unreadable += last - r.offset + 1
            if len(self.decoding_errors) < MAX_DECODING_ERRORS:
                self.decoding_errors.append(f"{position}: {r.unreadable}")
            return True
        if r.last_offset is not None:
            self.undecodable_rows.append((position, r.unreadable or ""))
        return r.last_offset is not None  # otherwise only its headers are undecodable, and rows have none

    async def _find_topics(self) -> Mapping[Source, Sequence[Physical]]:
        by_name: dict[str, list[Physical]] = {}
        for tp in await partitions_of(self._settings, TOPICS.values()):
            by_name.setdefault(tp.topic, []).append(tp)
        found = {source: by_name.get(self._names.topic(name), []) for source, name in TOPICS.items()}
        return {source: tps for source, tps in found.items() if tps}

    async def _since(self, found: Mapping[Physical, OffsetRange]) -> Mapping[Physical, OffsetRange]:
        """Moves the starts of topics about orders to `since`."""
        assert self._since_ms is not None
        by_order = {
            tp: self._since_ms - (0 if source is Source.ORDERS else _MARGIN_MS)
            for source, tps in self.sources.items()
            for tp in tps
            if source.group is FactGroup.ORDER and source is not Source.RESERVATIONS
        }
        starts = await self._consumer.offsets_for_times(by_order)
        result = dict(found)
        for tp in by_order:
            start = starts[tp].offset if starts.get(tp) else found[tp].end
            result[tp] = found[tp]._replace(start=max(start, found[tp].start))
        return result
