"""The sink: stores polled records in its database, a batch in a transaction that also advances the offsets.

Offsets count in the database alone. Whoever advances them from where they are has stored the records before them, and
any other worker, a zombie for example, changes nothing. So a crash, a takeover or a transaction in doubt needs no more
than to read the offsets again. It depends on ports only (`runtime/sink/ports.py`).
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from runtime.common.backoff import Backoff
from runtime.data_loss.losses import LossPath, LossReporter, RecordsLost
from runtime.errors import DatabaseUnavailable, OffsetsMoved, PositionOutOfRange
from runtime.metrics.sink import METRICS, SinkMetrics
from runtime.model.dead_letters import dead_letter
from runtime.model.records import TopicPartition
from runtime.model.sink import Sink, SinkRecord
from runtime.sink.lag import SinkLag
from runtime.sink.placement import SinkPosition
from runtime.sink.ports import Fetched, Move, Polled, SinkConsumer, SinkDatabase
from runtime.sink.storing import BatchStore, Publish, SinkBatch
from runtime.sink.traces import traced
from runtime.tracing.tracer import Tracer

log = logging.getLogger(__name__)


class SinkEngine:
    """Runs a sink. While a batch is being stored, the next one is polled and prepared.

    Arguments:
        service: name of the service.
        sink: what it stores.
        consumer: member of the sink's group.
        database: the service's database.
        publish: produces dead letters.
        clock: the time, UTC.
        losses: reports records that the broker removed before they were read.
        metrics: of sinks.
        tracer: of the worker, if it traces.
    """

    SMALL = 500
    """Records of a batch up to which the next poll lingers."""
    LINGER_S = 0.2
    """Seconds that it lingers, so that records of a while share a transaction. Without it, a steady load would cost a
    transaction for every few records, on the event loop of other services."""
    FETCH_S = 0.5
    """Seconds, the longest wait for records."""
    CHECK_S = 2.0
    """Seconds between two notes in the database that a partition has no new records."""
    FIRST_PAUSE_S = 0.25
    """Seconds before the first retry after an error."""
    LONGEST_PAUSE_S = 5.0
    """Seconds between two retries at most."""

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
        tracer: Tracer | None = None,
    ) -> None:
        self.service = service
        self.unavailable: str | None = "not started yet"
        """Why nothing is stored now; `None` while it works."""
        self._consumer = consumer
        self._database = database
        self._publish = publish
        self._clock = clock
        self._losses = losses
        self._metrics = metrics
        self._tracer = tracer
        self._lag = SinkLag(service, clock)
        metrics.watch(self._lag)
        self._store = BatchStore(service, sink, database, publish, clock, metrics)
        self._storing: asyncio.Task[None] | None = None
        """The batch that is being stored, until `_positions`."""
        self._positions: dict[TopicPartition, SinkPosition] = {}
        """Where the database will be once that batch is stored, of the partitions that are read."""
        self._generation: int | None = None
        """Generation of the assignment that `_positions` belongs to; `None`: the offsets have to be read again."""
        self._checked_at = float("-inf")

    async def run(self) -> None:
        """Stores records until it is cancelled. An error is retried: the offsets tell what is stored."""
        backoff = Backoff(self.FIRST_PAUSE_S, self.LONGEST_PAUSE_S)
        try:
            while True:
                try:
                    await self.step()
                except RecordsLost:
                    return  # reported as the failure of the worker
                except Exception as error:  # whatever is raised, records still have to be stored
                    await self.abandon()
                    self._report(error)
                    await backoff.pause()
                else:
                    if self.unavailable is None:
                        backoff.reset()
        finally:
            await self.abandon()

    async def step(self) -> None:
        """Polls and prepares a batch, waits until the one before is stored, and starts to store it."""
        if self._generation != self._consumer.generation:
            await self.settle()
            await self._place()
        polled = await self._consumer.fetch(self.FETCH_S)
        if self._generation != self._consumer.generation:
            return  # fetched under another assignment: placed anew first
        self._lag.poll(polled)
        records = self._records(polled)
        if not records:
            await self.settle()
            await self._check(polled)
            return
        batch = SinkBatch(records, self._positions, polled.positions, polled.ends, self._checks(polled))
        prepared = await self._store.prepare(batch)
        await self.settle()
        store = partial(self._store.store, batch, prepared)
        storing = store() if self._tracer is None else traced(self._tracer, self.service, records, store)
        self._storing = asyncio.create_task(storing)
        self._positions = batch.after
        if len(records) < self.SMALL:
            await asyncio.sleep(self.LINGER_S)

    async def settle(self) -> None:
        """Waits until the last batch is stored, and raises its error."""
        if self._storing is not None:
            storing, self._storing = self._storing, None
            try:
                await storing
            except asyncio.CancelledError:
                storing.cancel()
                raise
            self.unavailable = None
            self._lag.store(self._positions)

    async def abandon(self) -> None:
        """Rolls back the batch that is being stored, unless it is committed, and reads the offsets again."""
        self._generation = None
        if self._storing is not None:
            storing, self._storing = self._storing, None
            storing.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await storing

    def _report(self, error: Exception) -> None:
        if isinstance(error, OffsetsMoved | PositionOutOfRange):
            log.info("sink reads its offsets again service=%s reason=%s", self.service, error)
            return
        self.unavailable = repr(error)
        self._metrics.failed(self.service)
        level = logging.WARNING if isinstance(error, DatabaseUnavailable) else logging.ERROR
        log.log(level, "sink failed, retried service=%s error=%r", self.service, error)

    async def _place(self) -> None:
        """Reads the offsets of the assigned partitions, and seeks to them."""
        generation = self._consumer.generation
        logs = await self._consumer.logs(self._consumer.assignment())
        self._lag.assign({tp: log.end for tp, log in logs.items()})
        placed = await self._database.place(logs)
        for tp, (_, placement) in placed.items():
            if placement.lost is not None:
                first, end, cause = placement.lost
                loss = self._losses.report(tp.topic, tp.partition, first, end, LossPath.INPUT, cause)
                await self._publish([dead_letter(loss.record(), self.service, loss.description, self._clock())])
        self._losses.reset()
        if generation == self._consumer.generation:
            self._positions = {tp: position for tp, (position, _) in placed.items()}
            self._lag.store(self._positions)
            self._consumer.seek({tp: position.next_offset for tp, position in self._positions.items()})
            self._generation = generation
            self.unavailable = None
            log.info("sink reads service=%s partitions=%d", self.service, len(placed))

    def _records(self, polled: Polled) -> list[SinkRecord]:
        """The polled records, in order within a partition."""
        result: list[SinkRecord] = []
        for tp, fetched in polled.records.items():
            if (position := self._positions.get(tp)) is None:
                continue
            result += [_record(tp, position.log, r) for r in fetched if r.offset >= position.next_offset]
        return result

    async def _check(self, polled: Polled) -> None:
        """Notes that partitions have no new records."""
        moves = self._checks(polled)
        if moves:
            async with self._database.transaction(moves):
                pass
            self.unavailable = None
        self._positions |= {tp: SinkPosition(move.log, move.next_offset) for tp, move in moves.items()}
        self._lag.store(self._positions)

    def _checks(self, polled: Polled) -> dict[TopicPartition, Move]:
        """How the offsets of partitions without new records move: past transaction markers. Nothing if not due.

        So the database tells how far it is behind, also in a partition without records beside busy ones.
        """
        now = asyncio.get_running_loop().time()
        if now - self._checked_at < self.CHECK_S:
            return {}
        self._checked_at = now
        return {
            tp: Move(number, at, max(at, polled.positions.get(tp, at)), polled.ends[tp])
            for tp, (number, at) in self._positions.items()
            if tp in polled.ends and not polled.records.get(tp)
        }


def _record(tp: TopicPartition, number: int, r: Fetched) -> SinkRecord:
    part = r.offset, r.timestamp, r.key, r.value, r.headers, r.unreadable, r.last_offset
    return SinkRecord(tp.topic, tp.partition, number, *part)
