"""Polls batches: all records and commands that wait, of all topics and partitions, at once."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from runtime.common.clock import elapsed_s
from runtime.data_loss.losses import Loss, LossReporter
from runtime.errors import PositionOutOfRange
from runtime.loop.partitions import Partitions
from runtime.model.commands import CommandQueue
from runtime.model.records import CONSUMED_BY, Header, Offsets, PolledBatch, Record, TopicPartition

log = logging.getLogger(__name__)


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
    """The consumer, a member of its group. It reads committed records only."""

    async def fetch(self, timeout_s: float) -> Mapping[TopicPartition, Sequence[FetchedMessage]]:
        """The records that wait, or the first that arrive within `timeout_s`.

        Raises `PositionOutOfRange`, and errors that end the consumer.
        """

    def positions(self) -> Offsets:
        """The next offset to read of each partition; past control records."""

    def seek(self, positions: Offsets) -> None:
        """Reads these partitions from these offsets."""

    def pause(self) -> None:
        """Reads no partition until `seek`."""

    def silence(self) -> float:
        """Seconds since the broker answered a fetch. Raises `RuntimeError` when fetching has ended."""

    def rejoin(self) -> None:
        """Rejoins the group."""

    async def commit(self, offsets: Offsets) -> None:
        """Commits offsets outside of transactions. Raises `Fenced`."""


class Poller:
    """Polls batches from the group consumer. Implements `runtime.loop.rebalance.PollingControl`.

    Arguments:
        consumer: the group consumer.
        commands: commands from HTTP handlers.
        partitions: what the worker owns. Records that its group has processed already (`consumed-by`) are skipped.
        session_timeout_s: seconds of silence of the broker after which another worker may own these partitions.
        clock: the time, UTC.
        out_of_range: called after ownership was given up because the broker was silent for a session, or no longer
            has the next record. It must see to it that the partitions are restored.
        losses: the records that the restore found to be gone.
    """

    COMMANDS_A_BATCH = 2000
    IDLE_S = 1.0
    BREATH_S = 0.02
    SETTLE_S = 1.0
    """Seconds, the longest time until positions that moved without a record (transaction markers, records that were
    processed already) are committed."""

    def __init__(
        self,
        consumer: GroupConsumer,
        commands: CommandQueue,
        partitions: Partitions,
        *,
        session_timeout_s: float,
        clock: Callable[[], datetime],
        out_of_range: Callable[[], None],
        losses: LossReporter | None = None,
    ) -> None:
        self._consumer = consumer
        self._commands = commands
        self._own = (CONSUMED_BY, partitions.topology.group.encode())
        self._ownership = partitions.ownership
        self._timers = partitions.timers
        self._session_timeout_s = session_timeout_s
        self._clock = clock
        self._out_of_range = out_of_range
        self._losses = LossReporter() if losses is None else losses
        self._reading = asyncio.Event()
        self.turns = 0
        """Calls of `next`: does not grow while a batch is processed."""
        self._settled = self._heard = elapsed_s()
        self._fetching: asyncio.Task[Mapping[TopicPartition, Sequence[FetchedMessage]]] | None = None

    def hold(self) -> None:
        """Stops reading all partitions."""
        self._reading.clear()
        self._commands.refuse()
        self._heard = elapsed_s()
        self._consumer.pause()

    def read_from(self, positions: Offsets) -> None:
        """Reads these partitions from these offsets."""
        if self._fetching is not None and self._fetching.done():
            self._fetching = None  # fetched from the old positions
        self._consumer.seek(positions)
        self._heard = elapsed_s()
        self._reading.set()

    async def next(self) -> PolledBatch | None:
        """The next batch; `None` if there is none within `IDLE_S`, then call again."""
        self.turns += 1
        try:
            return await self._poll() if await self._may_read() else None
        except PositionOutOfRange as error:
            # The restore asks the broker which records there are, and which are gone.
            if self._ownership.running:
                log.warning("position out of range, restoring partition=%s", error)
                self._ownership.lose()
                self._out_of_range()
            return None

    def processed(self) -> None:
        """A batch is processed. The time it took does not count as silence of the broker."""
        self._heard = elapsed_s()

    async def _may_read(self) -> bool:
        """Waits up to `IDLE_S` until reading is allowed; else polls once: aiokafka reports fatal group errors there."""
        if not self._reading.is_set():
            try:
                async with asyncio.timeout(self.IDLE_S):
                    await self._reading.wait()
            except TimeoutError:
                if not self._reading.is_set():
                    await self._fetch(0)  # its records are dropped: nothing is owned
        return self._reading.is_set()

    async def _poll(self) -> PolledBatch | None:
        """Everything that waits, or that arrives before a timer is due. Ranges of lost records come first."""
        if self._ownership.running and (lost := self._losses.take(self._ownership.partitions)):
            return self._batch_of_losses(lost)
        fetched = await self._fetch(self._time_to_timer_s())
        ownership = self._ownership
        # Ownership may have changed during the fetch. From here on nothing is awaited.
        # Records fetched while nothing is owned are dropped: the restore seeks to the committed offsets.
        if not ownership.running:
            await asyncio.sleep(self.BREATH_S)  # a fetch with buffered records does not yield
            return None
        self._detect_silence()
        if not ownership.running:
            return None
        records = [record for tp, messages in fetched.items() for record in self._records(tp, messages)]
        positions = {
            tp: position
            for tp, position in self._consumer.positions().items()
            if tp in ownership.partitions and position != ownership.positions[tp]
        }
        for tp in sorted(self._losses.begun & ownership.partitions):
            positions.setdefault(tp, ownership.positions[tp])
        settled = not positions or elapsed_s() - self._settled < self.SETTLE_S
        commands = self._commands.take(self.COMMANDS_A_BATCH)
        if not records and not commands and not self._due() and settled:
            return None
        self._settled = elapsed_s()
        self._losses.begun.clear()
        if not positions:
            # Timers or commands alone: the batch commits a current offset, so that a zombie is fenced.
            positions = dict(itertools.islice(ownership.positions.items(), 1))
        return PolledBatch(records, positions, ownership.membership, commands, ownership.epoch)

    def _batch_of_losses(self, lost: Sequence[Loss]) -> PolledBatch:
        """A record for each range of lost records, to be dead-lettered. Positions are past the ranges already."""
        ownership = self._ownership
        tps = [TopicPartition(loss.topic, loss.partition) for loss in lost]
        return PolledBatch(
            [loss.record() for loss in lost],
            {tp: ownership.positions[tp] for tp in tps},
            ownership.membership,
            epoch=ownership.epoch,
        )

    async def _fetch(self, timeout_s: float) -> Mapping[TopicPartition, Sequence[FetchedMessage]]:
        """The records that the consumer fetches within `timeout_s`; none as soon as a command arrives.

        The fetch continues while commands are processed; its records are returned by a later call. Raises the errors
        of the consumer.
        """
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._consumer.fetch(self.IDLE_S), name="fetch")
            await asyncio.sleep(0)  # buffered records are returned at once
        if not self._commands and not self._fetching.done():
            arrival = asyncio.ensure_future(self._commands.arrived())
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

    def _records(self, tp: TopicPartition, messages: Iterable[FetchedMessage]) -> Iterator[Record]:
        """The records of one partition, without those that this group has processed already."""
        for m in messages:
            if not (m.headers and self._own in m.headers):
                yield Record(tp.topic, tp.partition, m.offset, m.timestamp, m.key, m.value, m.headers, m.unreadable)

    def _detect_silence(self) -> None:
        """Gives ownership up when the broker was silent for a session: another worker may own the partitions by now.

        A broker without records answers several times a second.
        """
        self._heard = max(self._heard, elapsed_s() - self._consumer.silence())
        if self._ownership.partitions and elapsed_s() - self._heard > self._session_timeout_s:
            log.warning("broker silent seconds=%.0f", elapsed_s() - self._heard)
            self._ownership.lose()
            self._out_of_range()

    def _due(self) -> bool:
        at = self._timers.next()
        return at is not None and at <= self._clock()

    def _time_to_timer_s(self) -> float:
        """Seconds until the next timer is due, at most `IDLE_S`."""
        at = self._timers.next()
        if at is None:
            return self.IDLE_S
        return min(self.IDLE_S, max(0.0, (at - self._clock()).total_seconds()))
