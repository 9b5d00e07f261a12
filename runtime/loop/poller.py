"""The poller: one batch of all waiting records and commands, of all topics and partitions."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from runtime.common.clock import elapsed_s
from runtime.data_loss.losses import Loss, LossReporter
from runtime.errors import PositionOutOfRange
from runtime.loop.partitions import Partitions
from runtime.model.commands import CommandQueue
from runtime.model.progress import Marks, marks_of
from runtime.model.records import Header, Offsets, PolledBatch, Record, TopicPartition

log = logging.getLogger(__name__)

_NOBODY: frozenset[str] = frozenset()
"""The services that have processed a record which no service has processed yet."""


class FetchedMessage(Protocol):
    """A record as the consumer fetched it."""

    @property
    def offset(self) -> int: ...

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970."""

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Sequence[Header]: ...

    @property
    def unreadable(self) -> str | None:
        """Why the record is unreadable, and the remedy; `None` for a readable one."""


class GroupConsumer(Protocol):
    """The consumer, as a member of its group. It reads committed records only."""

    async def fetch(self, timeout_s: float) -> Mapping[TopicPartition, Sequence[FetchedMessage]]:
        """Returns the records that wait, or the first that arrive within `timeout_s`.

        Raises `PositionOutOfRange`, and errors that end the consumer.
        """

    def polled(self, *, in_vain: bool) -> None:
        """Told after a fetch of records whether it was in vain: all of them have been processed already.

        After many such fetches it may delay the next ones a little.
        """

    def positions(self) -> Offsets:
        """Returns the next offset to read of each partition, past control records."""

    def seek(self, positions: Offsets) -> None:
        """Resumes fetching, from these positions."""

    def pause(self) -> None:
        """Pauses all partitions until `seek`."""

    def silence(self) -> float:
        """Seconds since the broker last answered a fetch. Raises `RuntimeError` when fetching has ended."""

    def rejoin(self) -> None:
        """Rejoins the group."""


class Poller:
    """Polls batches from the group consumer. Implements `runtime.loop.rebalance.PollingControl`.

    Arguments:
        consumer: the group consumer.
        commands: commands from HTTP handlers.
        partitions: the owned partitions. Services skip the records that they have processed already.
        session_timeout_s: seconds without an answer of the broker after which another worker may own the partitions.
        clock: the time, UTC.
        restore: called once ownership is lost because the broker did not answer for a session, or no longer has the
            next record. It must restore the partitions.
        losses: ranges of lost records that the restore found.
    """

    MAX_COMMANDS = 500
    """Commands of one batch. Bounds the size of its transaction, and how long HTTP requests wait while it is processed.
    A command of a batch of 2,000 costs as much as a command of a batch of 500."""

    IDLE_S = 1.0
    """Seconds, the longest wait for records before `next` returns `None`."""

    YIELD_S = 0.02
    """Seconds of pause while nothing is owned: a fetch of buffered records does not yield to the event loop."""

    POSITIONS_S = 1.0
    """Seconds until positions are committed that moved without a record (transaction markers, skipped records)."""

    def __init__(
        self,
        consumer: GroupConsumer,
        commands: CommandQueue,
        partitions: Partitions,
        *,
        session_timeout_s: float,
        clock: Callable[[], datetime],
        restore: Callable[[], None],
        losses: LossReporter | None = None,
    ) -> None:
        self._consumer = consumer
        self._commands = commands
        topology = partitions.topology
        self._readers = topology.readers
        self._own_marks = {
            topic: marks_of(topology.group, topology.joined_readers(topic)) for topic in topology.consumed
        }
        """By topic: the headers of a record that all services here have processed."""
        self._marks = Marks()
        self._ownership = partitions.ownership
        self._timers = partitions.timers
        self._session_timeout_s = session_timeout_s
        self._clock = clock
        self._restore = restore
        self._losses = LossReporter() if losses is None else losses
        self._reading = asyncio.Event()
        self.polls = 0
        """Calls of `next`. Does not grow while a batch is processed."""
        self.read: dict[TopicPartition, int] = {}
        """Timestamp, milliseconds, of the last record read of each partition since the last restore."""
        self._last_batch = self._last_answer = elapsed_s()
        self._fetching: asyncio.Task[Mapping[TopicPartition, Sequence[FetchedMessage]]] | None = None

    def hold(self) -> None:
        """Stops polling all partitions, and refuses the waiting commands."""
        self._reading.clear()
        self._commands.abandon()
        self._last_answer = elapsed_s()
        self._consumer.pause()

    def read_from(self, positions: Offsets) -> None:
        """Resumes polling, from these positions."""
        if self._fetching is not None and self._fetching.done():
            self._fetching = None  # fetched from the old positions
        self.read.clear()
        self._consumer.seek(positions)
        self._last_answer = elapsed_s()
        self._reading.set()

    async def next(self) -> PolledBatch | None:
        """Returns the next batch, or `None` if there is none within `IDLE_S`."""
        self.polls += 1
        try:
            return await self._poll() if await self._may_read() else None
        except PositionOutOfRange as error:
            # The restore finds out which records are lost.
            if self._ownership.running:
                log.warning("position out of range, restoring partition=%s", error)
                self._ownership.lose()
                self._restore()
            return None

    def processed(self) -> None:
        """Restarts the measurement of silence: no fetch is sent while a batch is processed."""
        self._last_answer = elapsed_s()

    async def _may_read(self) -> bool:
        """Waits up to `IDLE_S` until polling is allowed. Fetches once if it is not.

        aiokafka reports fatal group errors only to a fetch.
        """
        if not self._reading.is_set():
            try:
                async with asyncio.timeout(self.IDLE_S):
                    await self._reading.wait()
            except TimeoutError:
                if not self._reading.is_set():
                    await self._fetch(0)  # the records are dropped, as no partition is owned
        return self._reading.is_set()

    async def _poll(self) -> PolledBatch | None:
        """Returns all that waits, or that arrives before a timer is due. Ranges of lost records come first."""
        if self._ownership.running and (lost := self._losses.pop(self._ownership.partitions)):
            return self._batch_of_losses(lost)
        fetched = await self._fetch(self._time_to_timer_s())
        ownership = self._ownership
        # Ownership may have changed during the fetch, but not after it: nothing below is awaited.
        # Records fetched while nothing is owned are dropped: the restore seeks to the committed offsets.
        if not ownership.running:
            await asyncio.sleep(self.YIELD_S)
            return None
        self._detect_silence()
        if not ownership.running:
            return None
        if ownership.starts:
            self.read_from(ownership.positions)  # drops the fetched records: they are fetched again
            return self._batch_of_starts()
        records = [record for tp, messages in fetched.items() for record in self._records(tp, messages)]
        if fetched:
            self._consumer.polled(in_vain=not records)
        positions = {
            tp: position
            for tp, position in self._consumer.positions().items()
            if tp in ownership.partitions and position != ownership.positions[tp]
        }
        for tp in sorted(self._losses.uncommitted & ownership.partitions):
            positions.setdefault(tp, ownership.positions[tp])
        commit_positions = bool(positions) and elapsed_s() - self._last_batch >= self.POSITIONS_S
        commands = self._commands.poll(self.MAX_COMMANDS)
        if not records and not commands and not self._timer_is_due() and not commit_positions:
            return None
        self._last_batch = elapsed_s()
        self._losses.uncommitted.clear()
        if not positions:
            # A batch of timers or commands alone commits a current offset, so that a zombie is fenced.
            positions = dict(itertools.islice(ownership.positions.items(), 1))
        return PolledBatch(records, positions, ownership.membership, commands, ownership.epoch)

    def _batch_of_losses(self, lost: Sequence[Loss]) -> PolledBatch:
        """Returns a record to be dead-lettered for each range. Positions are past the ranges already."""
        ownership = self._ownership
        tps = [TopicPartition(loss.topic, loss.partition) for loss in lost]
        return PolledBatch(
            [loss.record() for loss in lost],
            {tp: ownership.positions[tp] for tp in tps},
            ownership.membership,
            epoch=ownership.epoch,
        )

    def _batch_of_starts(self) -> PolledBatch:
        """Returns a batch that commits where services start: after a crash they start at the same positions."""
        ownership = self._ownership
        positions = {tp: ownership.positions[tp] for tp in ownership.starts}
        return PolledBatch([], positions, ownership.membership, epoch=ownership.epoch)

    async def _fetch(self, timeout_s: float) -> Mapping[TopicPartition, Sequence[FetchedMessage]]:
        """Returns the records fetched within `timeout_s`; none as soon as a command arrives.

        The fetch continues while commands are processed, and a later call returns its records. Raises the errors of
        the consumer.
        """
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._consumer.fetch(self.IDLE_S), name="fetch")
            await asyncio.sleep(0)  # buffered records are returned at once
        if not self._commands and not self._fetching.done():
            arrival = asyncio.ensure_future(self._commands.wait())
            try:
                await asyncio.wait({self._fetching, arrival}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                arrival.cancel()
        fetching = self._fetching
        if fetching is None or not fetching.done():
            return {}
        self._fetching = None
        return fetching.result()

    async def stop(self) -> None:
        """Cancels the running fetch."""
        fetching, self._fetching = self._fetching, None
        if fetching is not None:
            fetching.cancel()
            await asyncio.wait({fetching})

    def _records(self, tp: TopicPartition, messages: Sequence[FetchedMessage]) -> Iterator[Record]:
        """The records of one partition, without those that all its services have processed already."""
        topic, partition = tp
        if messages:
            self.read[tp] = messages[-1].timestamp
        readers, marks, ahead = self._readers[topic], self._own_marks[topic], self._ownership.ahead.get(tp)
        mark, also = marks[0], marks[-1]
        for m in messages:
            processed_by = _NOBODY
            if headers := m.headers:
                if mark in headers and also in headers:
                    continue
                processed_by = self._marks.services(headers)
            if ahead is not None:
                processed_by = processed_by.union(s for s, position in ahead.items() if m.offset < position)
            if processed_by:
                processed_by &= readers
                if processed_by == readers:
                    continue
            yield Record(topic, partition, m.offset, m.timestamp, m.key, m.value, headers, m.unreadable, processed_by)

    def _detect_silence(self) -> None:
        """Loses ownership after a session without an answer of the broker.

        Another worker may own the partitions by then. A broker without records answers several times a second.
        """
        self._last_answer = max(self._last_answer, elapsed_s() - self._consumer.silence())
        if self._ownership.partitions and elapsed_s() - self._last_answer > self._session_timeout_s:
            log.warning("broker silent, restoring seconds=%.0f", elapsed_s() - self._last_answer)
            self._ownership.lose()
            self._restore()

    def _timer_is_due(self) -> bool:
        at = self._timers.next()
        return at is not None and at <= self._clock()

    def _time_to_timer_s(self) -> float:
        """Seconds until the next timer is due, at most `IDLE_S`."""
        at = self._timers.next()
        if at is None:
            return self.IDLE_S
        return min(self.IDLE_S, max(0.0, (at - self._clock()).total_seconds()))
