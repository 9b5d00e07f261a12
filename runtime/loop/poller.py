"""The first step of the loop: everything that waits, of all topics and partitions, in one go."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from runtime.common.clock import elapsed_s
from runtime.data_loss.losses import Loss, LossReporter
from runtime.errors import PositionOutOfRange
from runtime.loop.ownership import Ownership
from runtime.loop.timers import Timers
from runtime.model.commands import CommandQueue, PendingCommand
from runtime.model.records import CONSUMED_BY, Header, Offsets, PolledRecords, Record, TopicPartition

log = logging.getLogger(__name__)


@dataclass(slots=True)
class PolledBatch:
    """What was taken, in which epoch of ownership, and a future that is done when the loop is through with it."""

    taken: PolledRecords
    epoch: int
    calls: list[PendingCommand[Any]]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class FetchedMessage(Protocol):
    """A message as the client has it."""

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
        """Why it could not be made out, and what to do; `None` for almost all."""


class GroupConsumer(Protocol):
    """The consumer, a member of its group. What it reads is committed."""

    async def fetch(self, timeout_s: float) -> Mapping[TopicPartition, Sequence[FetchedMessage]]:
        """What waits, or what comes first within the time. Raises `PositionOutOfRange`, and what ends the consumer."""

    def positions(self) -> Offsets:
        """Next offset to read of each partition that has one: behind control records too."""

    def seek(self, positions: Offsets) -> None:
        """Reads these partitions from there on."""

    def pause(self) -> None:
        """Reads no partition until `seek`."""

    def silence(self) -> float:
        """Seconds since the broker answered a fetch. Raises `RuntimeError` when nobody asks it any more."""

    def rejoin(self) -> None:
        """Joins the group anew."""

    async def commit(self, offsets: Offsets) -> None:
        """Commits offsets outside of transactions. Raises `Fenced`."""


class Poller:
    """Takes what waits. The side of the consumer that a handover directs (`runtime.loop.rebalance.PollingControl`).

    Arguments:
        client: the consumer.
        calls: what the HTTP side wants decided.
        group: whose messages, marked as decided, are passed over.
        session_timeout_s: silence of the broker after which others may own these partitions.
        clock: the time, UTC.
        lost: called when what was owned is to be taken over anew, and not owned any more: the broker has not been heard
            for a session, or no longer has what comes next.
        records_lost: what the takeover found to be gone.
    """

    CALLS_A_BATCH = 2000
    IDLE_S = 1.0
    BREATH_S = 0.02
    SETTLE_S = 1.0
    """After which positions that moved without a record (markers, messages decided already) are committed as well."""

    def __init__(
        self,
        client: GroupConsumer,
        calls: CommandQueue,
        group: str,
        ownership: Ownership,
        timers: Timers,
        session_timeout_s: float,
        clock: Callable[[], datetime],
        lost: Callable[[], None],
        records_lost: LossReporter | None = None,
    ) -> None:
        self._client = client
        self._calls = calls
        self._own = (CONSUMED_BY, group.encode())
        self._ownership = ownership
        self._timers = timers
        self._session_timeout_s = session_timeout_s
        self._clock = clock
        self._lost = lost
        self._records_lost = LossReporter() if records_lost is None else records_lost
        self._reading = asyncio.Event()
        self.turns = 0
        """Times it was asked for the next take: it stands still while one is in hand."""
        self._settled = self._heard = elapsed_s()
        self._fetching: asyncio.Task[Mapping[TopicPartition, Sequence[FetchedMessage]]] | None = None

    def hold(self) -> None:
        """Stops reading all partitions."""
        self._reading.clear()
        self._calls.refuse()
        self._heard = elapsed_s()
        self._client.pause()

    def read_from(self, positions: Offsets) -> None:
        """Reads these partitions from these offsets."""
        if self._fetching is not None and self._fetching.done():
            self._fetching = None  # it was read from elsewhere
        self._client.seek(positions)
        self._heard = elapsed_s()
        self._reading.set()

    async def next(self) -> PolledBatch | None:
        """The next take; `None` when there is none within the time, and the caller is to ask again."""
        self.turns += 1
        try:
            return await self._take() if await self._may_read() else None
        except PositionOutOfRange as error:
            # What there is now, and what is gone, is told by the broker to whoever takes over: here again.
            if self._ownership.running:
                log.warning("position is out of range, taking over anew partition=%s", error)
                self._ownership.lose()
                self._lost()
            return None

    def decided(self) -> None:
        """The loop is through with a take: what is about to be fetched has had no time to come."""
        self._heard = elapsed_s()

    async def _may_read(self) -> bool:
        """Waits for it a while. Raises what keeps this worker out of the group for good: the client tells it only to
        who asks for messages."""
        if not self._reading.is_set():
            try:
                async with asyncio.timeout(self.IDLE_S):
                    await self._reading.wait()
            except TimeoutError:
                if not self._reading.is_set():
                    await self._fetch(0)  # what it brings is dropped, as between two owners
        return self._reading.is_set()

    async def _take(self) -> PolledBatch | None:
        """Everything that waits, or that comes within the time until something is due. First of all, what is lost."""
        if self._ownership.running and (lost := self._records_lost.take(self._ownership.partitions)):
            return self._told(lost)
        fetched = await self._fetch(self._patience())
        ownership = self._ownership
        # Ownership is looked at after the fetch, for it may have changed during it; from here on nothing is awaited.
        # What a fetch brings between two owners is dropped: the takeover seeks back to what is committed.
        if not ownership.running:
            await asyncio.sleep(self.BREATH_S)  # a fetch that need not wait does not let others run
            return None
        self._listen()
        if not ownership.running:
            return None
        records = [record for tp, messages in fetched.items() for record in self._records(tp, messages)]
        positions = {
            tp: position
            for tp, position in self._client.positions().items()
            if tp in ownership.partitions and position != ownership.positions[tp]
        }
        for tp in sorted(self._records_lost.begun & ownership.partitions):
            positions.setdefault(tp, ownership.positions[tp])
        settled = not positions or elapsed_s() - self._settled < self.SETTLE_S
        calls = self._calls.take(self.CALLS_A_BATCH)
        if not records and not calls and not self._due() and settled:
            return None
        self._settled = elapsed_s()
        self._records_lost.begun.clear()
        if not positions:
            # Timers or calls alone: the batch commits the offset it finds, by which a zombie is refused.
            positions = dict(itertools.islice(ownership.positions.items(), 1))
        return PolledBatch(PolledRecords(records, positions, ownership.membership, calls), ownership.epoch, calls)

    def _told(self, lost: Sequence[Loss]) -> PolledBatch:
        """Records that are gone, each range as a record that is set aside; the positions are behind them already."""
        ownership = self._ownership
        tps = [TopicPartition(loss.topic, loss.partition) for loss in lost]
        taken = PolledRecords(
            [loss.record() for loss in lost], {tp: ownership.positions[tp] for tp in tps}, ownership.membership
        )
        return PolledBatch(taken, ownership.epoch, [])

    async def _fetch(self, patience: float) -> Mapping[TopicPartition, Sequence[FetchedMessage]]:
        """What the client brings within the time; or nothing, as soon as somebody calls. Raises what the client does.

        A fetch goes on while calls are decided, and is looked at the next time.
        """
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._client.fetch(self.IDLE_S), name="fetch")
            await asyncio.sleep(0)  # what is here already comes at once
        if not self._calls and not self._fetching.done():
            arrival = asyncio.ensure_future(self._calls.arrived())
            try:
                await asyncio.wait({self._fetching, arrival}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            finally:
                arrival.cancel()
        fetching = self._fetching
        if fetching is None or not fetching.done():
            return {}
        self._fetching = None
        return fetching.result()

    async def stop(self) -> None:
        """Ends a fetch that is under way."""
        fetching, self._fetching = self._fetching, None
        if fetching is not None:
            fetching.cancel()
            await asyncio.wait({fetching})

    def _records(self, tp: TopicPartition, messages: Iterable[FetchedMessage]) -> Iterator[Record]:
        """Messages of one partition, without those that this group has decided already."""
        for m in messages:
            if not (m.headers and self._own in m.headers):
                yield Record(tp.topic, tp.partition, m.offset, m.timestamp, m.key, m.value, m.headers, m.unreadable)

    def _listen(self) -> None:
        """Notices when the broker is not heard any more: others may own these partitions by now.

        A broker that has nothing to tell says so several times a second.
        """
        self._heard = max(self._heard, elapsed_s() - self._client.silence())
        if self._ownership.partitions and elapsed_s() - self._heard > self._session_timeout_s:
            log.warning("broker not heard seconds=%.0f", elapsed_s() - self._heard)
            self._ownership.lose()
            self._lost()

    def _due(self) -> bool:
        at = self._timers.next()
        return at is not None and at <= self._clock()

    def _patience(self) -> float:
        """Seconds until something is due, at most `IDLE_S`."""
        at = self._timers.next()
        if at is None:
            return self.IDLE_S
        return min(self.IDLE_S, max(0.0, (at - self._clock()).total_seconds()))
