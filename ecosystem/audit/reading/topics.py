"""Reading the topics once, one after the other, from where they start up to the ends that were found."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from statistics import mode
from types import TracebackType
from typing import Self

from aiokafka import TopicPartition as Physical

from ecosystem.audit.facts import MESSAGES, REFUSALS, TOPICS, Fact, FactGroup, Source, placed
from ecosystem.audit.reading.offset_ranges import Span, spans
from ecosystem.audit.report import AuditError, Misplaced
from ecosystem.clients.dead_letters.dead_letter import DeadLetter
from ecosystem.clients.reader import partitions_of
from runtime.common.partitioning import MisplacedError, check_partition, partition_of
from runtime.common.settings import Guarantee, Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.kafka.unpacker import FetchedRecord
from runtime.model.records import Record
from runtime.model.service import RejectedSideEffect

BUFFER = 32 * 1024 * 1024
"""Bytes that may wait in memory to be looked at, of all partitions of a topic together."""

MOST_FAULTS = 100
"""Unreadable messages that are told with their place; all of them are counted."""

_LEAST = 64 * 1024
_PAUSE_S = {Guarantee.EXACTLY_ONCE: 0.0, Guarantee.AT_LEAST_ONCE: 2.0}
_SHOWN_MISPLACED = 5
"""Misplaced records of a topic that are shown: they have one cause, its producer."""

_MARGIN_MS = 60_000
"""How much earlier than the orders that follow from them other records are read: clocks differ."""

Advanced = Callable[[int], None]


def _check_refusal(source: Source, r: FetchedRecord) -> None:
    """Raises `ValueError` if a record is not the dead letter of a side effect that was refused for good.

    Others may write to topics of dead letters, and a message that is no side effect becomes a dead letter there too.
    """
    DeadLetter.of(Record(TOPICS[source], r.partition, r.offset, r.timestamp, r.key, r.value, r.headers))
    RejectedSideEffect.from_json(r.value or b"")


class Topics:
    """The topics of a deployment, as they are now.

    Arguments:
        settings: broker and prefix.
        guarantee: writers without transactions are given a moment to write what belongs together.
        patience: how long to wait for transactions that are open.
        since: orders and what concerns them are read from then on; stock, reservations, customers from their beginning.
    """

    def __init__(self, settings: Settings, guarantee: Guarantee, since: datetime | None, patience: timedelta) -> None:
        self._settings = settings
        self._names = KafkaNames(settings.topic_prefix)
        self._pause_s = _PAUSE_S[guarantee]
        self._patience_s = patience.total_seconds()
        self._since_ms = None if since is None else int(since.timestamp() * 1000)
        self.sources: Mapping[Source, Sequence[Physical]] = {}
        self.spans: Mapping[Physical, Span] = {}
        self.first_ms: dict[Physical, int] = {}
        self.unreadable = 0
        self.partitions = settings.partitions
        """With how many the topics were made: those of most of them. One may have been given more since."""
        self.misplaced = 0
        self.misplaced_shown: list[Misplaced] = []
        """The first ones of each topic: memory is bounded, whatever others write."""
        """Messages, of public topics."""
        self.faults: list[str] = []
        """Where the first of those stand that could not be made out at all, and why."""
        self.lost_rows: list[tuple[str, str]] = []
        """The same of rows of tables, all of them."""

    async def __aenter__(self) -> Self:
        """Finds the topics and their ends. Raises `AuditError` if there is nothing to audit."""
        self.sources = await self._find()
        if Source.ORDERS not in self.sources:
            raise AuditError(
                f"there is no topic {self._names.topic(TOPICS[Source.ORDERS])!r} at "
                f"{self._settings.kafka_bootstrap_servers}: is TOPIC_PREFIX right?"
            )
        counts = sorted(len(tps) for tps in self.sources.values())
        most, self.partitions = counts[-1], mode(counts)
        self._consumer = clients.standalone_consumer(self._settings, max(_LEAST, BUFFER // most))
        async with AsyncExitStack() as opened:
            opened.push_async_callback(self._consumer.stop)
            await self._consumer.start()
            partitions = [tp for tps in self.sources.values() for tp in tps]
            found = await spans(self._consumer, partitions, self._pause_s, self._patience_s)
            self.spans = found if self._since_ms is None else await self._cut_off(found)
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.aclose()

    @property
    def size(self) -> int:
        """Offsets to be read."""
        return sum(span.end - span.start for span in self.spans.values())

    def whole(self, source: Source) -> bool:
        """Whether a topic that is kept by time is read from its very first record."""
        return all(self.spans[tp].start == 0 for tp in self.sources[source])

    def read_from_ms(self, source: Source) -> dict[int, int]:
        """By partition, the time from which on its records are there; without those that are there from the first."""
        return {
            tp.partition: max(self.first_ms.get(tp, 2**62), (self._since_ms or 0) - _MARGIN_MS)
            for tp in self.sources.get(source, ())
            if self.spans[tp].start
        }

    async def records(self, source: Source, advanced: Advanced) -> AsyncIterator[tuple[bytes, Fact]]:
        """What every committed record is about, and what it says. `advanced` is told how many offsets were passed."""
        todo = {tp: span for tp in self.sources[source] if (span := self.spans[tp]).start < span.end}
        if not todo:
            return
        consumer = self._consumer
        consumer.assign(list(todo))
        at = {tp: span.start for tp, span in todo.items()}
        for tp, offset in at.items():
            consumer.seek(tp, offset)
        while todo:
            for tp, records in (await consumer.getmany(timeout_ms=200, max_records=5000)).items():
                for r in records:
                    if tp in todo and r.offset < todo[tp].end:
                        if r.unreadable is not None and self._is_missed(source, r):
                            continue
                        self.first_ms.setdefault(tp, r.timestamp)
                        if self._is_misplaced(source, r):
                            continue
                        try:
                            if source in REFUSALS:
                                _check_refusal(source, r)
                            key, about = placed(source, r.key or b"\xff", r.value)
                        except ValueError:
                            self.unreadable += 1
                            continue
                        late = r.offset >= todo[tp].late
                        yield key, Fact(source, r.partition, r.offset, r.timestamp, late, r.value, about)
            for tp, position in aiokafka_internals.positions(consumer).items():  # they pass over markers too
                if tp in todo:
                    advanced(min(position, todo[tp].end) - min(at[tp], todo[tp].end))
                    at[tp] = position
                    if position >= todo[tp].end:
                        del todo[tp]
                        consumer.pause(tp)
        consumer.unsubscribe()

    def _is_misplaced(self, source: Source, record: FetchedRecord) -> bool:
        """Whether a record stands in another partition than its key's, as the services would say, who set it aside."""
        if source not in MESSAGES or record.key is None:
            return False
        try:
            check_partition(record.key, record.partition, self.partitions)
        except MisplacedError as error:
            topic = TOPICS[source]
            self.misplaced += 1
            if sum(one.topic == topic for one in self.misplaced_shown) < _SHOWN_MISPLACED:
                key = record.key.decode(errors="backslashreplace")
                belongs = partition_of(record.key, self.partitions)
                found = Misplaced(topic, record.partition, record.offset, key, belongs, str(error))
                self.misplaced_shown.append(found)
            return True
        return False

    def _is_missed(self, source: Source, r: FetchedRecord) -> bool:
        """Whether a record with a fault tells nothing. Notes where it stands, and why."""
        place = f"{TOPICS[source]} {r.partition}@{r.offset}"
        if source in MESSAGES:
            last = r.offset if r.last_offset is None else r.last_offset
            self.unreadable += last - r.offset + 1
            if len(self.faults) < MOST_FAULTS:
                self.faults.append(f"{place}: {r.unreadable}")
            return True
        if r.last_offset is not None:
            self.lost_rows.append((place, r.unreadable or ""))
        return r.last_offset is not None  # or else its headers are at fault, and rows have none

    async def _find(self) -> Mapping[Source, Sequence[Physical]]:
        by_name: dict[str, list[Physical]] = {}
        for tp in await partitions_of(self._settings, TOPICS.values()):
            by_name.setdefault(tp.topic, []).append(tp)
        found = {source: by_name.get(self._names.topic(name), []) for source, name in TOPICS.items()}
        return {source: tps for source, tps in found.items() if tps}

    async def _cut_off(self, found: Mapping[Physical, Span]) -> Mapping[Physical, Span]:
        """The spans from `since` on, where that may be."""
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
