"""Compares the history with the topics, record by record: none is missing, none is there twice, none differs."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

import asyncpg
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Physical

from ecosystem.audit.report import AuditError
from ecosystem.clients.reader import partitions_of
from history_service.partitions import Window
from history_service.projection import project_raw
from history_service.settings import HistorySettings
from history_service.stages import TOPIC_STAGES
from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.kafka.unpacker import FetchedRecord
from runtime.model.sink import SinkRecord

_TIMEOUT_S = 10.0
_PREFETCH = 2000
_PARTITION_BYTES = 2 * 1024 * 1024

_POSITIONS = """
    SELECT o.topic, o.partition, o.log, o.next_offset, l.log_id
    FROM sink_offsets o JOIN sink_logs l ON l.id = o.log
"""
_ROWS = """
    SELECT "offset", key, value, headers, produced_at FROM records
    WHERE log = $1 AND partition = $2 AND "offset" >= $3 AND "offset" < $4 ORDER BY "offset", produced_at
"""

OnProgress = Callable[[int, int], None]
"""Called with the number of partitions that are compared, and of all."""


class Difference(StrEnum):
    """How the history differs from a topic."""

    MISSING = "missing"
    """The topic has the record, the history does not, although it is past it."""
    TWICE = "twice"
    DIFFERS = "differs"
    """Key, value, headers or time are not the same."""
    FOREIGN = "foreign"
    """The history has a record that the topic does not have, and that no compaction can have removed."""


class Entry(NamedTuple):
    """A record, on either side."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[bytes | None, ...]
    produced_at: datetime


class Finding(NamedTuple):
    """A record that is not the same on both sides."""

    difference: Difference
    topic: str
    partition: int
    offset: int


@dataclass(slots=True)
class HistoryReport:
    """What the comparison found.

    Arguments:
        compared: records that are on both sides, or should be.
        waiting: offsets that the history has not read yet.
        expired: records that the history no longer keeps, by its retention.
        findings: the first ones.
        counts: of all findings.
    """

    compared: int = 0
    waiting: int = 0
    expired: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[Difference] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        return not self.counts

    def add(self, finding: Finding, limit: int) -> None:
        """Counts a finding, and keeps it if there are fewer than `limit` of its kind."""
        self.counts[finding.difference] += 1
        if self.counts[finding.difference] <= limit:
            self.findings.append(finding)

    def as_dict(self) -> Mapping[str, Any]:
        """As JSON has it."""
        return {
            "ok": self.ok,
            "compared": self.compared,
            "waiting": self.waiting,
            "expired": self.expired,
            **{difference.value: self.counts[difference] for difference in Difference},
            "findings": [finding._asdict() for finding in self.findings],
        }


def differences(
    topic: Sequence[Entry], rows: Sequence[Entry], *, compacted: bool, end: int
) -> Iterator[tuple[Difference, int]]:
    """Compares two runs of records in the order of their offsets. Pure.

    Arguments:
        topic: records of the topic.
        rows: of the history.
        compacted: whether the topic may have removed records.
        end: the offset before which both are complete.

    >>> at = datetime(2026, 11, 29, tzinfo=UTC)
    >>> def entry(offset, value=b""): return Entry(offset, None, value, (), at)
    >>> list(differences([entry(1), entry(2)], [entry(2, b"x"), entry(2), entry(3)], compacted=False, end=4))
    ... # doctest: +NORMALIZE_WHITESPACE
    [(<Difference.MISSING: 'missing'>, 1), (<Difference.DIFFERS: 'differs'>, 2), (<Difference.TWICE: 'twice'>, 2),
     (<Difference.FOREIGN: 'foreign'>, 3)]
    """
    stored: dict[int, Entry] = {}
    twice = []
    for row in rows:
        if row.offset in stored:
            twice.append(row.offset)
        stored.setdefault(row.offset, row)
    written = {record.offset: record for record in topic if record.offset < end}
    for offset in sorted(written.keys() | stored.keys()):
        record, row_ = written.get(offset), stored.get(offset)
        if row_ is None:
            yield Difference.MISSING, offset
        elif record is None:
            if not compacted:
                yield Difference.FOREIGN, offset
        elif record != row_:
            yield Difference.DIFFERS, offset
        for _ in range(twice.count(offset) if twice else 0):
            yield Difference.TWICE, offset


class HistoryAudit:
    """Compares the history with the topics.

    Arguments:
        settings: broker and prefix; the history's own settings name its database.
        limit: findings that are kept of each kind.
    """

    RUN = 5000
    """Offsets that are compared at a time."""

    def __init__(self, settings: Settings, limit: int) -> None:
        own = settings.of(HistorySettings)
        if own.history_database_url is None:
            raise AuditError("set HISTORY_DATABASE_URL to the database of the history")
        self._url = own.history_database_url.get_secret_value()
        self._cutoff = Window(datetime.now(UTC), own.history_retention_months).cutoff
        self._settings = settings
        self._limit = limit
        self._names = KafkaNames(settings.topic_prefix)
        self.report = HistoryReport()

    async def compare(self, on_progress: OnProgress = lambda done, total: None) -> HistoryReport:
        """Compares all partitions. Raises `AuditError` if the database or a topic cannot be read."""
        consumer = clients.standalone_consumer(self._settings, _PARTITION_BYTES)
        try:
            await consumer.start()
            connection = await asyncpg.connect(self._url, timeout=_TIMEOUT_S)
            try:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    await self._compare_all(consumer, connection, on_progress)
            finally:
                await connection.close()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise AuditError(f"the database of history cannot be read: {error or error!r}") from error
        finally:
            await consumer.stop()
        return self.report

    async def _compare_all(self, consumer: AIOKafkaConsumer, connection: Any, on_progress: OnProgress) -> None:
        physical = await partitions_of(self._settings, TOPIC_STAGES)
        starts = await aiokafka_internals.log_starts(consumer, physical)
        ends = await aiokafka_internals.log_ends(consumer, physical, committed=True)
        ids = await aiokafka_internals.topic_ids(consumer, {tp.topic for tp in physical})
        rows = await connection.fetch(_POSITIONS)
        positions = {(row["topic"], row["partition"]): row for row in rows}
        for done, tp in enumerate(sorted(physical)):
            on_progress(done, len(physical))
            row = positions.get((self._names.logical(tp.topic), tp.partition))
            if row is None or (row["log_id"] and row["log_id"] != ids.get(tp.topic, row["log_id"])):
                self.report.waiting += ends[tp] - starts[tp]  # never read, or made anew since
                continue
            stored = min(row["next_offset"], ends[tp])
            self.report.waiting += ends[tp] - max(starts[tp], stored)
            if starts[tp] < stored:
                await self._compare_partition(consumer, connection, tp, row["log"], starts[tp], stored)

    async def _compare_partition(
        self, consumer: AIOKafkaConsumer, connection: Any, tp: Physical, log: int, start: int, end: int
    ) -> None:
        topic = self._names.logical(tp.topic)
        compacted = TOPIC_STAGES[topic].topic.retention.compacted and topic == TOPIC_STAGES[topic].topic.name
        async for records, until in self._runs(consumer, tp, start, end):
            rows = await connection.fetch(_ROWS, log, tp.partition, start, until)
            entries = [Entry(r[0], r[1], r[2], tuple(r[3] or ()), r[4]) for r in rows]
            kept = [r for r in records if self._cutoff is None or r.produced_at >= self._cutoff.start]
            offsets = {entry.offset for entry in entries}
            self.report.expired += sum(r.offset not in offsets for r in records) - sum(
                r.offset not in offsets for r in kept
            )
            known = [r for r in records if r in kept or r.offset in offsets]
            self.report.compared += len(known)
            for difference, offset in differences(known, entries, compacted=compacted, end=until):
                self.report.add(Finding(difference, topic, tp.partition, offset), self._limit)
            start = until

    async def _runs(
        self, consumer: AIOKafkaConsumer, tp: Physical, start: int, end: int
    ) -> AsyncIterator[tuple[list[Entry], int]]:
        """Yields the records of a partition in runs, each with the offset before which it is complete."""
        consumer.assign([tp])
        consumer.seek(tp, start)
        while start < end:
            fetched = await consumer.getmany(timeout_ms=200, max_records=self.RUN)
            position = min(aiokafka_internals.positions(consumer).get(tp, start), end)
            records = [_entry(r) for r in fetched.get(tp, ()) if r.offset < end]
            if position > start:
                yield records, position
                start = position
        consumer.unsubscribe()


def _entry(r: FetchedRecord) -> Entry:
    record = SinkRecord("", r.partition, 0, r.offset, r.timestamp, r.key, r.value, r.headers)
    [(produced_at, *_, key, value, headers)] = project_raw(record, lambda: datetime.now(UTC)).records
    return Entry(r.offset, key, value, tuple(headers or ()), produced_at)
