"""The consumer of a worker, modelled on aiokafka's: a group member and a prefetching fetcher."""

import asyncio

from aiokafka.errors import (
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from runtime.errors import PositionOutOfRange
from runtime.kafka.fetch_pacing import FetchPacer
from runtime.model.records import Membership, TopicPartition
from tests.simulation.network import Channel

BACKOFF_S = 0.05
PATIENCE = 3  # less than a worker's: a world is short


class Message:
    """A record as aiokafka delivers it."""

    __slots__ = ("headers", "key", "offset", "timestamp", "unreadable", "value")

    def __init__(self, entry):
        self.offset = entry.offset
        self.timestamp = entry.timestamp_ms
        self.key = entry.key
        self.value = entry.value
        self.headers = entry.headers
        self.unreadable = entry.unreadable


class SimulatedMember:
    """Implements `runtime.loop.poller.GroupConsumer`.

    Arguments:
        engine: its `revoked` is called before the member joins, its `assigned` with the new partitions.
        topics: the subscription. Each topic has `partitions` partitions.
    """

    def __init__(self, process, network, broker, settings, group, topics):
        self._process = process
        self._network = network
        self._broker = broker
        self._loop = broker.loop
        self._settings = settings
        self._group = broker.group(group)
        self._topics = topics
        self._coordinator = Channel(process, "member:coordinator")
        self._nodes = [Channel(process, f"member:{node}") for node in range(broker.NODES)]
        self._engine = None
        self._tasks = []
        self._heartbeat = None
        self._closing = False
        self._generation, self._member_id = -1, ""
        self._rejoin = asyncio.Event()
        self._rejoin.set()
        self._assigned = None
        self._reassigning = asyncio.Event()  # set while there is none
        self._positions = {}
        self._paused = set()
        self._buffer = {}
        self._fetchable = asyncio.Event()
        self._fetched = asyncio.Event()
        self._heard = self._confirmed = -1e9
        self._in_vain = 0

    async def start(self, engine):
        self._engine = engine
        self._tasks = [asyncio.create_task(self._coordinate())]
        self._tasks += [asyncio.create_task(self._fetch_from(node)) for node in range(self._broker.NODES)]

    async def stop(self):
        """Leaves the group."""
        self._closing = True
        self._rejoin.set()
        await asyncio.wait(self._tasks[:1])
        for task in [*self._tasks, *([self._heartbeat] if self._heartbeat else [])]:
            task.cancel()
        if self._member_id:
            try:
                await self._network.call(self._coordinator, "LeaveGroup", lambda: self._group.leave(self._member_id))
            except KafkaError:
                pass  # the session times out

    def failure(self):
        """The error that ended one of its tasks, if any."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None

    # What the engine asks.

    def membership(self):
        return Membership(self._generation, self._member_id)

    def confirmed(self):
        """Time of the last confirmed heartbeat, on the worker's clock."""
        return self._confirmed

    async def fetch(self, timeout_s):
        if (failure := self.failure()) is not None:
            raise failure
        until = self._loop.now + timeout_s
        while True:
            if not self._reassigning.is_set():
                await self._reassigning.wait()
            found = self._take_buffered()
            if found or self._loop.now >= until:
                return found
            self._fetched.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._fetched.wait()
            except TimeoutError:
                pass

    def polled(self, *, in_vain):
        self._in_vain = self._in_vain + 1 if in_vain else 0

    def positions(self):
        return dict(self._positions)

    def seek(self, positions):
        for tp in positions:
            if self._assigned is None or tp not in self._assigned:
                raise IllegalStateError(f"No current assignment for partition {tp}")
        for tp, offset in positions.items():
            self._positions[tp] = offset
            self._paused.discard(tp)
        self._fetchable.set()

    def pause(self):
        self._paused.update(self._assigned or ())

    def silence(self):
        return self._loop.now - self._heard

    def rejoin(self):
        self._rejoin.set()

    # The group.

    async def _coordinate(self):
        prepared = False
        while not self._closing:
            await self._rejoin.wait()
            if self._closing:
                return
            if not prepared:
                self._reassigning.clear()
                await self._engine.revoked()
                prepared = True
            await self._stop_heartbeat()
            if await self._join():
                prepared = False
                self._heartbeat = asyncio.create_task(self._beat())
            else:
                await asyncio.sleep(BACKOFF_S)

    async def _join(self):
        """One attempt to join. Returns whether it ended with an assignment."""
        settings, asked = self._settings, self._loop.now
        try:
            self._generation, self._member_id, members = await self._network.call(
                self._coordinator,
                "JoinGroup",
                lambda m=self._member_id: self._group.join(
                    self._process.name, m, settings.session_timeout_s, settings.session_timeout_s
                ),
            )
            self._rejoin.clear()
            assignment = self._assign(members) if members is not None else None
            partitions, standby = await self._network.call(
                self._coordinator,
                "SyncGroup",
                lambda m=self._member_id, g=self._generation: self._group.sync(m, g, assignment),
            )
        except (UnknownMemberIdError, IllegalGenerationError):
            self._forget_generation()
            return False
        except KafkaError:  # the error may also announce the next generation
            self._rejoin.set()
            return False
        self._assigned = dict.fromkeys(TopicPartition(topic, p) for topic in self._topics for p in partitions)
        self._positions.clear()
        self._buffer.clear()
        self._paused = set()
        self._reassigning.set()
        self._confirmed = asked
        await self._engine.assigned(list(self._assigned), self.membership(), standby)
        return True

    def _assign(self, members):
        """Assigns all partitions of one number to one member, not always the same, and a standby to another.

        Returns the owned and the standby partitions of each member.
        """
        turn = self._broker.random.randrange(len(members))
        numbers = range(self._settings.partitions)
        owners = {p: members[(p + turn) % len(members)] for p in numbers}
        after = {m: members[(n + 1) % len(members)] for n, m in enumerate(members)}
        return {
            m: ([p for p in numbers if owners[p] == m], [p for p in numbers if after[owners[p]] == m != owners[p]])
            for m in members
        }

    async def _beat(self):
        interval = pause = self._settings.heartbeat_interval_s
        while self._member_id:
            await asyncio.sleep(pause)
            pause, asked = interval, self._loop.now
            try:
                await self._network.call(
                    self._coordinator,
                    "Heartbeat",
                    lambda m=self._member_id, g=self._generation: self._group.heartbeat(m, g),
                )
            except RebalanceInProgressError:
                self._rejoin.set()
            except (UnknownMemberIdError, IllegalGenerationError):
                self._forget_generation()
                return
            except KafkaError:
                pause = BACKOFF_S
            else:
                self._confirmed = asked

    async def _stop_heartbeat(self):
        task, self._heartbeat = self._heartbeat, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def _forget_generation(self):
        self._generation, self._member_id = -1, ""
        self._rejoin.set()

    # Fetching.

    async def _fetch_from(self, node):
        channel, most = self._nodes[node], self._settings.batch_limit
        while True:
            wanted = {
                tp: position
                for tp, position in self._positions.items()
                if tp not in self._paused and tp not in self._buffer and self._broker.node(tp) == node
            }
            if not wanted:
                self._fetchable.clear()
                await self._fetchable.wait()
                continue
            if self._in_vain >= PATIENCE:
                await asyncio.sleep(FetchPacer.PAUSE_S)
            try:
                found = await self._network.call(
                    channel, "Fetch", lambda positions=wanted: self._broker.fetch(positions, most)
                )
            except KafkaError:
                await asyncio.sleep(BACKOFF_S)
                continue
            self._heard = self._loop.now
            for tp, (asked, records, behind) in found.items():
                if self._positions.get(tp) == asked:
                    self._buffer[tp] = asked, records, behind
            if found:
                self._fetched.set()

    def _take_buffered(self):
        """Prefetched records. Positions advance behind them, and behind transaction markers."""
        taken = {}
        for tp in list(self._buffer):
            if tp in self._paused:
                continue
            if self._buffer[tp][1] is None and taken:
                continue  # the error is raised once no records are left
            asked, records, behind = self._buffer.pop(tp)
            if self._positions.get(tp) == asked and records is None:
                raise PositionOutOfRange(f"{tp.topic}[{tp.partition}]")
            if self._positions.get(tp) == asked:
                self._positions[tp] = behind
                if records:
                    taken[tp] = [Message(r) for r in records]
        self._fetchable.set()
        return taken
