"""The sink: stores polled records in its database, a batch in a transaction that also advances the offsets.

Offsets count in the database alone. Whoever advances them from where they are has stored the records before them, and
any other worker, a zombie for example, changes nothing. So a crash, a takeover or a transaction in doubt needs no more
than to read the offsets again. It depends on ports only (`runtime/sink/ports.py`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from runtime.common.backoff import Backoff
from runtime.data_loss.losses import LossPath, LossReporter, RecordsLost
from runtime.errors import BatchTooLarge, DatabaseUnavailable, OffsetsMoved, PositionOutOfRange, RowsRejected
from runtime.metrics.sink import METRICS, SinkMetrics
from runtime.model.dead_letters import dead_letter
from runtime.model.records import Offsets, Record, TopicPartition, Write
from runtime.model.sink import Sink, SinkRecord
from runtime.sink.placement import SinkPosition
from runtime.sink.ports import Move, Moves, Polled, SinkConsumer, SinkDatabase
from schemas.topics import DEAD_LETTERS

log = logging.getLogger(__name__)

Publish = Callable[[Sequence[Write]], Awaitable[None]]
"""Returns when the broker has acknowledged the messages. Raises `BrokerUnavailable`."""


class SinkEngine:
    """Runs a sink.

    Arguments:
        service: name of the service.
        sink: what it stores.
        consumer: member of the sink's group.
        database: the service's database.
        publish: produces dead letters.
        clock: the time, UTC.
        losses: reports records that the broker removed before they were read.
        metrics: of sinks.
    """

    FETCH_S = 0.5
    """Seconds, the longest wait for records."""
    CHECK_S = 1.0
    """Seconds between two notes in the database that a partition has no new records."""
    FIRST_PAUSE_S = 0.25
    """Seconds before the first retry after an error."""
    LONGEST_PAUSE_S = 5.0
    """Seconds between two retries at most."""
    SLICE = 100
    """Records that are prepared at a time: a few milliseconds, in which the worker does nothing else."""

    def __init__(
        self,
        service: str,
        sink: Sink[Any],
        consumer: SinkConsumer,
        database: SinkDatabase,
        publish: Publish,
        *,
        clock: Callable[[], datetime],
        losses: LossReporter,
        metrics: SinkMetrics = METRICS,
    ) -> None:
        self.service = service
        self.unavailable: str | None = "not started yet"
        """Why nothing is stored now; `None` while it works."""
        self._sink = sink
        self._consumer = consumer
        self._database = database
        self._publish = publish
        self._clock = clock
        self._losses = losses
        self._metrics = metrics
        self._positions: dict[TopicPartition, SinkPosition] = {}
        """Where the database is, of the partitions that are read."""
        self._generation: int | None = None
        """Generation of the assignment that `_positions` belongs to."""
        self._checked_at = float("-inf")

    async def run(self) -> None:
        """Stores records until it is cancelled. An error is retried: the offsets tell what is stored."""
        backoff = Backoff(self.FIRST_PAUSE_S, self.LONGEST_PAUSE_S)
        while True:
            try:
                await self.step()
            except RecordsLost:
                return  # reported as the failure of the worker
            except (OffsetsMoved, PositionOutOfRange) as error:
                log.info("sink reads its offsets again service=%s reason=%s", self.service, error)
                self._generation = None
            except Exception as error:  # whatever the database or the broker raises, records still have to be stored
                self.unavailable = repr(error)
                self._generation = None
                self._metrics.failed(self.service)
                level = logging.WARNING if isinstance(error, DatabaseUnavailable) else logging.ERROR
                log.log(level, "sink failed, retried service=%s error=%r", self.service, error)
            else:
                self.unavailable = None
                backoff.reset()
                continue
            await backoff.pause()

    async def step(self) -> None:
        """Stores the records of one poll."""
        if self._generation != self._consumer.generation:
            await self._place()
        polled = await self._consumer.fetch(self.FETCH_S)
        if self._generation != self._consumer.generation:
            return  # fetched under another assignment: placed anew first
        records = self._records(polled)
        if records:
            await self._store(records, polled.positions, polled.ends)
        else:
            await self._check(polled)

    async def _place(self) -> None:
        """Reads the offsets of the assigned partitions, and seeks to them."""
        generation = self._consumer.generation
        assigned = self._consumer.assignment()
        logs = await self._consumer.logs(assigned)
        placed = await self._database.place(logs)
        letters = []
        for tp, (_, placement) in placed.items():
            if placement.lost is not None:
                first, end, cause = placement.lost
                loss = self._losses.report(tp.topic, tp.partition, first, end, LossPath.INPUT, cause)
                letters.append(dead_letter(loss.record(), self.service, loss.description, self._clock()))
        self._losses.reset()
        await self._dead_letter(letters)
        if generation == self._consumer.generation:
            self._positions = {tp: position for tp, (position, _) in placed.items()}
            self._consumer.seek({tp: position.next_offset for tp, position in self._positions.items()})
            self._generation = generation
            log.info("sink reads service=%s partitions=%d", self.service, len(placed))

    def _records(self, polled: Polled) -> list[SinkRecord]:
        """The polled records, in order within a partition."""
        result = []
        for tp, records in polled.records.items():
            position = self._positions.get(tp)
            if position is None:
                continue
            topic, partition = tp
            number = position.log
            result += [
                SinkRecord(
                    topic,
                    partition,
                    number,
                    r.offset,
                    r.timestamp,
                    r.key,
                    r.value,
                    r.headers,
                    r.unreadable,
                    r.last_offset,
                )
                for r in records
                if r.offset >= position.next_offset
            ]
        return result

    async def _store(self, records: Sequence[SinkRecord], positions: Offsets, ends: Offsets) -> None:
        """Stores records. Halves a batch that the database rejects, until the rejected record is alone.

        Arguments:
            records: in order within a partition.
            positions: the next offsets to fetch once all records are stored.
            ends: last stable offsets.
        """
        try:
            await self._store_at_once(records, positions, ends)
        except RowsRejected as rejected:
            if len(records) == 1:
                await self._store_raw(records[0], positions, ends, str(rejected))
                return
            half = len(records) // 2
            await self._store(records[:half], {}, ends)
            await self._store(records[half:], positions, ends)

    async def _store_at_once(self, records: Sequence[SinkRecord], positions: Offsets, ends: Offsets) -> None:
        moves = self._moves(records, positions, ends)
        prepared, letters = [], []
        readable = [r for r in records if r.unreadable is None]
        for start in range(0, len(readable), self.SLICE):
            prepared.append(self._prepared(readable[start : start + self.SLICE]))
            await asyncio.sleep(0)
        for r in records:
            if r.unreadable is not None:
                prepared.append(self._sink.prepare_raw(r))
                letters.append(self._letter(r, r.unreadable))
        await self._dead_letter(letters)
        if self._sink.before is not None:
            await self._sink.before(prepared)
        async with self._database.transaction(moves) as writer:
            await self._sink.write(writer, prepared)
        self._advance(moves)
        self._metrics.stored(self.service, len(records))

    def _prepared(self, records: Sequence[SinkRecord]) -> Any:
        try:
            return self._sink.prepare(records)
        except Exception as error:  # whatever a record makes `prepare` raise: it is found by halving
            raise RowsRejected(repr(error)) from error

    async def _store_raw(self, record: SinkRecord, positions: Offsets, ends: Offsets, reason: str) -> None:
        """Dead-letters a rejected record, and stores its bytes if the database accepts them."""
        log.error(
            "record rejected by the database service=%s topic=%s partition=%d offset=%d reason=%s",
            *(self.service, record.topic, record.partition, record.offset, reason),
        )
        await self._dead_letter([self._letter(record, reason)])
        moves = self._moves([record], positions, ends)
        try:
            async with self._database.transaction(moves) as writer:
                await self._sink.write(writer, [self._sink.prepare_raw(record)])
        except RowsRejected as rejected:
            log.error(  # noqa: TRY400 - expected, no stack trace
                "record not stored service=%s topic=%s partition=%d offset=%d reason=%s",
                *(self.service, record.topic, record.partition, record.offset, rejected),
            )
            async with self._database.transaction(moves):
                pass  # the offset moves on: the dead letter has the record
        self._advance(moves)
        self._metrics.rejected(self.service)

    async def _check(self, polled: Polled) -> None:
        """Notes that partitions have no new records, and moves offsets past transaction markers."""
        now = asyncio.get_running_loop().time()
        if now - self._checked_at < self.CHECK_S or not self._positions:
            return
        moves = {
            tp: Move(log_, at, max(at, polled.positions.get(tp, at)), polled.ends[tp])
            for tp, (log_, at) in self._positions.items()
            if tp in polled.ends
        }
        async with self._database.transaction(moves):
            pass
        self._advance(moves)
        self._checked_at = now

    def _moves(self, records: Sequence[SinkRecord], positions: Offsets, ends: Offsets) -> dict[TopicPartition, Move]:
        """How the offsets move when records are stored."""
        last = {TopicPartition(r.topic, r.partition): r for r in records}
        moves = {}
        for tp, r in last.items():
            number, expected = self._positions[tp]
            next_offset = max(r.next_offset, positions.get(tp, 0))
            moves[tp] = Move(number, expected, next_offset, max(next_offset, ends.get(tp, 0)), r.timestamp_ms)
        return moves

    def _advance(self, moves: Moves) -> None:
        for tp, move in moves.items():
            self._positions[tp] = SinkPosition(move.log, move.next_offset)

    def _letter(self, record: SinkRecord, reason: str) -> Write | None:
        """The dead letter of a record; `None` for one that is a dead letter already."""
        if record.topic.endswith(DEAD_LETTERS):
            return None
        topic, partition, _, offset, time_ms, key, value, headers, unreadable, _ = record
        original = Record(topic, partition, offset, time_ms, key, value, headers, unreadable)
        return dead_letter(original, self.service, reason, self._clock())

    async def _dead_letter(self, letters: Sequence[Write | None]) -> None:
        """Returns when dead letters are acknowledged. A crash before the commit repeats them."""
        for letter in letters:
            if letter is None:
                continue
            try:
                await self._publish([letter])
            except BatchTooLarge as error:
                log.error("dead letter too large topic=%s error=%s", letter.topic, error)  # noqa: TRY400 - expected
