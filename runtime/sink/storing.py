"""Stores a batch of records in one transaction, and finds the record that the database rejects."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runtime.errors import BatchTooLarge, RowsRejected
from runtime.metrics.sink import SinkMetrics
from runtime.model.dead_letters import dead_letter
from runtime.model.records import Offsets, Record, TopicPartition, Write
from runtime.model.sink import Sink, SinkRecord
from runtime.sink.placement import SinkPosition
from runtime.sink.ports import Move, SinkDatabase
from schemas.topics import DEAD_LETTERS

log = logging.getLogger(__name__)

Publish = Callable[[Sequence[Write]], Awaitable[None]]
"""Returns when the broker has acknowledged the messages. Raises `BrokerUnavailable`."""

SLICE = 100
"""Records that are prepared at a time: a few milliseconds, in which the worker does nothing else."""


@dataclass(frozen=True, slots=True)
class SinkBatch:
    """Records to be stored at once.

    Arguments:
        records: in order within a partition.
        expected: where the database is before.
        positions: the next offsets to read once all records are stored; also past transaction markers.
        ends: last stable offsets.
        checks: how the offsets of partitions without records move.
        moves: how all of them move.
    """

    records: Sequence[SinkRecord]
    expected: Mapping[TopicPartition, SinkPosition]
    positions: Offsets
    ends: Offsets
    checks: Mapping[TopicPartition, Move] = field(default_factory=dict)
    moves: Mapping[TopicPartition, Move] = field(init=False)

    def __post_init__(self) -> None:
        last = {TopicPartition(r.topic, r.partition): r for r in self.records}
        moves = dict(self.checks)
        for tp, r in last.items():
            number, expected = self.expected[tp]
            next_offset = max(r.next_offset, self.positions.get(tp, 0))
            moves[tp] = Move(number, expected, next_offset, max(next_offset, self.ends.get(tp, 0)), r.timestamp_ms)
        object.__setattr__(self, "moves", moves)

    @property
    def after(self) -> dict[TopicPartition, SinkPosition]:
        """Where the database is once the batch is stored."""
        moved = {tp: SinkPosition(move.log, move.next_offset) for tp, move in self.moves.items()}
        return {**self.expected, **moved}

    def halves(self) -> tuple["SinkBatch", "SinkBatch"]:
        """Two batches, to be stored one after the other."""
        half = len(self.records) // 2
        first = SinkBatch(self.records[:half], self.expected, {}, self.ends)
        return first, SinkBatch(self.records[half:], first.after, self.positions, self.ends, self.checks)


class BatchStore:
    """Stores batches.

    Arguments:
        service: name of the service.
        sink: what it stores.
        database: the service's database.
        publish: produces dead letters.
        clock: the time, UTC.
        metrics: of sinks.
    """

    def __init__(
        self,
        service: str,
        sink: Sink[Any],
        database: SinkDatabase,
        publish: Publish,
        clock: Callable[[], datetime],
        metrics: SinkMetrics,
    ) -> None:
        self._service = service
        self._sink = sink
        self._database = database
        self._publish = publish
        self._clock = clock
        self._metrics = metrics

    async def prepare(self, batch: SinkBatch) -> list[Any] | str:
        """The rows of a batch; or why those of some record cannot be made."""
        readable = [r for r in batch.records if r.unreadable is None]
        prepared = []
        for start in range(0, len(readable), SLICE):
            try:
                prepared.append(self._sink.prepare(readable[start : start + SLICE]))
            except Exception as error:  # whatever a record makes `prepare` raise: it is found by halving
                log.warning("rows cannot be made service=%s error=%r", self._service, error)
                return f"its rows cannot be made: {error}"
            await asyncio.sleep(0)
        return prepared + [self._sink.prepare_raw(r) for r in batch.records if r.unreadable is not None]

    async def store(self, batch: SinkBatch, prepared: list[Any] | str) -> None:
        """Stores a batch. Halves one that the database rejects, until the rejected record is alone.

        Raises `OffsetsMoved`, `DatabaseUnavailable`, or what the broker raises at a dead letter.
        """
        reason = await self._store_at_once(batch, prepared)
        if reason is None:
            self._metrics.stored(self._service, len(batch.records))
        elif len(batch.records) == 1:
            await self._store_raw(batch, reason)
        else:
            for half in batch.halves():
                await self.store(half, await self.prepare(half))

    async def _store_at_once(self, batch: SinkBatch, prepared: list[Any] | str) -> str | None:
        """Stores a batch in one transaction. Returns why it is rejected; `None` if it is stored."""
        if isinstance(prepared, str):
            return prepared
        await self._dead_letter((r, r.unreadable) for r in batch.records if r.unreadable is not None)
        if self._sink.before is not None:
            await self._sink.before(prepared)
        try:
            async with self._database.transaction(batch.moves) as writer:
                await self._sink.write(writer, prepared)
        except RowsRejected as rejected:
            return str(rejected)
        return None

    async def _store_raw(self, batch: SinkBatch, reason: str) -> None:
        """Dead-letters a rejected record, and stores its bytes if the database accepts them."""
        [record] = batch.records
        where = (self._service, record.topic, record.partition, record.offset)
        log.error(
            "record rejected by the database service=%s topic=%s partition=%d offset=%d reason=%s", *where, reason
        )
        await self._dead_letter([(record, reason)])
        try:
            async with self._database.transaction(batch.moves) as writer:
                await self._sink.write(writer, [self._sink.prepare_raw(record)])
        except RowsRejected as rejected:
            log.error(  # noqa: TRY400 - expected, no stack trace
                "record not stored service=%s topic=%s partition=%d offset=%d reason=%s", *where, rejected
            )
            async with self._database.transaction(batch.moves):
                pass  # the offset moves on: the dead letter has the record
        self._metrics.rejected(self._service)

    async def _dead_letter(self, rejected: Iterable[tuple[SinkRecord, str]]) -> None:
        """Returns when dead letters are acknowledged. A crash before the commit repeats them.

        A record that is a dead letter already gets none.
        """
        for record, reason in rejected:
            if record.topic.endswith(DEAD_LETTERS):
                continue
            topic, partition, _, offset, time_ms, key, value, headers, unreadable, _ = record
            original = Record(topic, partition, offset, time_ms, key, value, headers, unreadable)
            letter = dead_letter(original, self._service, reason, self._clock())
            try:
                await self._publish([letter])
            except BatchTooLarge as error:
                log.error("dead letter too large topic=%s error=%s", letter.topic, error)  # noqa: TRY400 - expected
