"""Faust's transport with a consumer of our own: it takes everything that waits in one go, in the worker's own thread.

Faust's driver runs its consumer in a thread of its own and makes two tasks a message. Here one go of the loop makes one
fetch: what waits becomes one `Take`, which is put on the channel that the worker's agent reads.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import TopicPartition as Physical
from aiokafka.errors import CommitFailedError, IllegalStateError
from faust.transport import base
from mode import Service

from runtime import internals, kafka
from runtime.kafka import Names
from runtime.ownership import Ownership
from runtime.plan import Plan
from runtime.records import CONSUMED_BY, Membership, Offsets, Record, Taken, TopicPartition
from runtime.settings import Settings
from runtime.timers import Timers

log = logging.getLogger("runtime.consumer")  # mode writes of its services' coming and going under the module's name


_NO_TEXT = "the name of a header is not UTF-8, here or before it in what its writer sent at once"


@dataclass(slots=True)
class Take:
    """What was taken, in which epoch of ownership, and a future that is done when the loop is through with it."""

    taken: Taken
    epoch: int
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the consumer is connected to."""

    settings: Settings
    plan: Plan
    ownership: Ownership
    timers: Timers
    clock: Callable[[], datetime]
    revoked: Callable[[], Awaitable[None]]
    assigned: Callable[[Collection[TopicPartition], Membership], Awaitable[None]]
    lost: Callable[[], None]
    """Called when the broker has not been heard for a session; what was owned is lost by then."""


class Consumer(Service, ConsumerRebalanceListener):
    """The worker's consumer: a Faust service, a member of the group, and the reader that a handover directs."""

    IDLE_S = 1.0
    BREATH_S = 0.02
    SETTLE_S = 1.0
    """After which positions that moved without a record (markers, messages decided already) are committed as well."""

    def __init__(self, app: Any, channel: Any, wiring: Wiring, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._app = app
        self._channel = channel
        self._wiring = wiring
        self._ownership = wiring.ownership
        self._names = Names(wiring.settings.topic_prefix)
        self._group = self._names.group(wiring.plan.group)
        self._own = (CONSUMED_BY, wiring.plan.group.encode())
        self._consumer: AIOKafkaConsumer | None = None
        self._reading = asyncio.Event()
        self._settled = self._heard = monotonic()
        self._unacked_messages: set[Any] = set()  # looked at by Faust's streams; takes are not acked one by one

    async def on_task_error(self, error: BaseException) -> None:
        """Called by Faust when an agent failed: nothing to commit, the batch was not."""
        log.error("agent failed error=%r", error)

    async def on_start(self) -> None:
        self._consumer = kafka.group_consumer(self._wiring.settings, self._group, self._app.assignor)
        await self._consumer.start()
        topics = [self._names.topic(name) for name in self._wiring.plan.consumed]
        self._consumer.subscribe(topics, listener=self)

    async def on_stop(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    def assignment(self) -> set[Physical]:
        """The partitions the group has given this worker."""
        return set(self._consumer.assignment()) if self._consumer else set()

    async def on_partitions_revoked(self, revoked: Collection[Physical]) -> None:
        async with self._or_crash():
            await self._wiring.revoked()

    async def on_partitions_assigned(self, assigned: Collection[Physical]) -> None:
        async with self._or_crash():
            await self._assigned(assigned)

    @asynccontextmanager
    async def _or_crash(self) -> AsyncIterator[None]:
        """aiokafka would log what fails here, and go on with a worker that never takes over."""
        try:
            yield
        except Exception as error:
            log.exception("rebalance failed")
            await self.crash(error)

    async def _assigned(self, assigned: Collection[Physical]) -> None:
        membership = internals.membership(self._consumer)
        log.info(
            "assigned generation=%d partitions=%s", membership.generation, sorted({tp.partition for tp in assigned})
        )
        await self._wiring.assigned([self._names.partition(tp) for tp in assigned], membership)

    def hold(self) -> None:
        """Stops reading all partitions."""
        self._reading.clear()
        self._heard = monotonic()
        if self._consumer is not None:
            self._consumer.pause(*self._consumer.assignment())

    def read_from(self, positions: Mapping[TopicPartition, int]) -> None:
        """Reads these partitions from these offsets."""
        assert self._consumer is not None
        for tp, offset in positions.items():
            self._consumer.seek(self._names.physical(tp), offset)
        self._consumer.resume(*(self._names.physical(tp) for tp in positions))
        self._heard = monotonic()
        self._reading.set()

    def rejoin(self) -> None:
        """Joins the group anew."""
        internals.rejoin(self._consumer)

    async def commit_offsets(self, offsets: Offsets) -> None:
        """Commits offsets outside of transactions. Raises `internals.Fenced`."""
        assert self._consumer is not None
        try:
            await self._consumer.commit({self._names.physical(tp): offset for tp, offset in offsets.items()})
        except (CommitFailedError, IllegalStateError) as error:
            raise internals.Fenced(str(error)) from error

    async def _drain_messages(self, fetcher: Any) -> None:
        """Called by Faust's fetcher service: takes, hands over, waits until the loop is through, takes again."""
        while not (self.should_stop or fetcher.should_stop):
            await self._until_reading()
            take = await self._take()
            if take is not None:
                await self._channel.put(take)
                await take.done
                self._heard = monotonic()  # what it is about to fetch has had no time to come

    async def _until_reading(self) -> None:
        """Raises what keeps this worker out of the group for good: aiokafka tells it only to who asks for messages."""
        assert self._consumer is not None
        while not self._reading.is_set():
            try:
                async with asyncio.timeout(self.IDLE_S):
                    await self._reading.wait()
            except TimeoutError:
                if not self._reading.is_set():
                    await self._consumer.getmany(timeout_ms=0)  # what it brings is dropped, as between two owners

    async def _take(self) -> Take | None:
        """Everything that waits, or that comes within the time until something is due."""
        assert self._consumer is not None
        try:
            fetched = await self._consumer.getmany(timeout_ms=int(self._patience() * 1000))
        except UnicodeDecodeError:
            return await self._pass_over(internals.unreadable(self._consumer))
        ownership = self._ownership
        # Ownership is looked at after the fetch, for it may have changed during it; from here on nothing is awaited.
        # What a fetch brings between two owners is dropped: the takeover seeks back to what is committed.
        if not ownership.running:
            await asyncio.sleep(self.BREATH_S)  # a fetch that need not wait does not let others run
            return None
        self._listen()
        if not ownership.running:
            return None
        records = [record for messages in fetched.values() for record in self._records(messages)]
        positions = {
            own: position
            for tp, position in internals.positions(self._consumer).items()
            if (own := self._names.partition(tp)) in ownership.partitions and position != ownership.positions[own]
        }
        settled = not positions or monotonic() - self._settled < self.SETTLE_S
        if not records and not self._due() and settled:
            return None
        self._settled = monotonic()
        if not positions:
            # Timers alone: their batch commits the offset it finds, for it is by its offsets that a zombie is refused.
            positions = dict(itertools.islice(ownership.positions.items(), 1))
        return Take(Taken(records, positions, ownership.membership), ownership.epoch)

    def _records(self, messages: Iterable[Any]) -> Iterator[Record]:
        """Messages of one partition, without those that this group has decided already."""
        for r in messages:
            if not (r.headers and self._own in r.headers):
                yield Record(
                    self._names.logical(r.topic), r.partition, r.offset, r.timestamp, r.key, r.value, r.headers
                )

    async def _pass_over(self, tp: Physical | None) -> Take | None:
        """Takes the messages before one whose header has a name that is no UTF-8, and that one as what it is.

        aiokafka raises on it, would do so for ever, and cannot read what its writer sent in one batch behind it either:
        that is set aside too, message by message.
        """
        consumer, ownership, epoch = self._consumer, self._ownership, self._ownership.epoch
        assert consumer is not None
        if tp is None or not ownership.running:
            return None
        self.read_from(ownership.positions)  # what was fetched along with it is read again
        messages: list[Any] = []
        while epoch == ownership.epoch:
            try:
                async with asyncio.timeout(self.IDLE_S):
                    messages.append(await consumer.getone(tp))
            except TimeoutError:
                continue
            except UnicodeDecodeError:
                break
        if epoch != ownership.epoch:
            return None
        own = self._names.partition(tp)
        offset = internals.positions(consumer)[tp]
        fault = Record(own.topic, own.partition, offset, 0, None, None, fault=_NO_TEXT)
        log.error("message passed over topic=%s partition=%d offset=%d", own.topic, own.partition, offset)
        consumer.seek(tp, offset + 1)
        return Take(Taken([*self._records(messages), fault], {own: offset + 1}, ownership.membership), epoch)

    def _listen(self) -> None:
        """Notices when the broker is not heard any more: others may own these partitions by now.

        A broker that has nothing to tell says so several times a second. Raises `RuntimeError` when nobody asks it.
        """
        if internals.fetching_ended(self._consumer):
            raise RuntimeError("the consumer has stopped fetching")
        self._heard = max(self._heard, internals.last_fetch(self._consumer))
        if self._ownership.partitions and monotonic() - self._heard > self._wiring.settings.session_timeout_s:
            log.warning("broker not heard seconds=%.0f", monotonic() - self._heard)
            self._ownership.lose()
            self._wiring.lost()

    def _due(self) -> bool:
        at = self._wiring.timers.next()
        return at is not None and at <= self._wiring.clock()

    def _patience(self) -> float:
        """Seconds until something is due, at most `IDLE_S`."""
        at = self._wiring.timers.next()
        if at is None:
            return self.IDLE_S
        return min(self.IDLE_S, max(0.0, (at - self._wiring.clock()).total_seconds()))


class Transport(base.Transport):
    """Faust's transport, of which only the fetcher service is used as it is."""

    driver_version = "faust-orders"
    default_port = 9092
    Consumer = Consumer
