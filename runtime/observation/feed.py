"""Reads topics for an observer while somebody watches: from the recent past on, in memory, without a consumer group."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Physical
from aiokafka.errors import KafkaError

from runtime.common.settings import Settings
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.model.records import Header
from runtime.observation.sampling import Sampling

log = logging.getLogger(__name__)

_PARTITION_BYTES = 128 * 1024
"""Bytes that are fetched of each partition at once."""
_MAX_RECORDS = 250
"""Records of one poll: about 2 ms, in which the worker does nothing else."""
_POLL_MS = 200
_PAUSE_S = 0.1
"""Seconds between two polls, so that records come in batches: a fetch costs as much as 50 records."""
_BUSY_PAUSE_S = 0.01
"""The same while more records wait: the rate must be seen as it is, so that fewer partitions are read."""
_LATEST_PAUSE_S = 1.0
"""Seconds between two polls of streams that are read at leisure."""
_CATCHING_UP_S = 20.0
"""Seconds in which the past is read without regard to the budget: it is bounded, and a gap in it would be seen."""
_TOPICS_S = 30.0
"""Seconds after which the topics are listed again: some may have been created."""
_RETRY_S = 2.0
_MOST_BEHIND_S = 3.0
"""Seconds behind which the feed goes on at the end, as it cannot keep up."""


class ObservedRecord(Protocol):
    """A record as it was fetched; `topic` is the physical name, `timestamp` in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    unreadable: str | None


class Observer(Protocol):
    """What a feed hands its records to. Called in the event loop: it must be fast, and never raises."""

    def restart(self) -> None:
        """Forgets everything: the feed begins anew."""

    def observe(self, topic: str, records: Sequence[ObservedRecord], share: float) -> None:
        """Takes records of a partition.

        Arguments:
            topic: logical name.
            records: in their order.
            share: part of the keys of this stream that are read.
        """

    def skip(self, from_ms: int, to_ms: int) -> None:
        """Takes note that records between two times are missing, milliseconds since 1970."""

    def narrow(self) -> None:
        """Takes note that fewer keys are read from now on: further records of some known ones will not come."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Topics that are read alike.

    Arguments:
        topics: whether a topic belongs to it, by its logical name.
        past_records: records of each partition that are read at the start, at most.
        past_s: the oldest of them, seconds; `None`: any.
        sampled: whether fewer partitions are read when records come too fast.
        keyed: whether fewer keys are read when one partition is too much: the same ones of all such streams.
        latest: whether only the latest records count: when more come than a poll a second takes, some are left out.
        gather_s: seconds for which the broker may gather records. Streams of the same time share a connection: each
            fetch names all of its partitions, which costs more than rare records of many topics.
    """

    topics: Callable[[str], bool]
    past_records: int
    past_s: float | None = None
    sampled: bool = False
    keyed: bool = False
    latest: bool = False
    gather_s: float = 0.25


class Feed:
    """Hands records to an observer while it has viewers, and for `IDLE_S` after the last one has gone.

    Arguments:
        settings: broker, prefix, number of partitions.
        streams: what to read; a topic belongs to the first that it fits. Topics of earlier streams come first.
        observer: takes the records.
    """

    IDLE_S = 60.0
    TICK_S = 0.5
    """Seconds between two looks of the viewers."""

    def __init__(self, settings: Settings, streams: Sequence[Stream], observer: Observer) -> None:
        self.sampling = Sampling(settings.partitions)
        self._settings = settings
        self._names = KafkaNames(settings.topic_prefix)
        self._streams = streams
        self._observer = observer
        self._failures: dict[float, str] = {}
        self._with_past: set[float] = set()
        """`gather_s` of connections that have read what was there when they began."""
        self._viewers = 0
        self._left_s = 0.0
        self._tick = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def unavailable(self) -> str | None:
        """Why nothing is read now; `None` while the broker answers."""
        return next(iter(self._failures.values()), None)

    @property
    def watched(self) -> bool:
        """Whether it reads."""
        return self._running is not None and not self._running.done()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Ends reading at the end of the block."""
        try:
            yield
        finally:
            if self._running is not None:
                self._running.cancel()
                await asyncio.gather(self._running, return_exceptions=True)

    @contextmanager
    def viewing(self) -> Iterator[None]:
        """Reads as long as anybody is inside."""
        self._viewers += 1
        if not self.watched:
            self._running = asyncio.create_task(self._run(), name="feed")
        try:
            yield
        finally:
            self._viewers -= 1
            self._left_s = time.monotonic()

    async def tick(self) -> None:
        """Returns at the next tick, which comes twice a second while there are viewers."""
        await self._tick.wait()

    async def _run(self) -> None:
        self._observer.restart()
        self._failures.clear()
        self._with_past.clear()
        times = sorted({stream.gather_s for stream in self._streams})
        reading = [asyncio.create_task(self._read_on(gather_s), name=f"feed of {gather_s} s") for gather_s in times]
        try:
            while self._viewers or time.monotonic() - self._left_s < self.IDLE_S:
                await asyncio.sleep(self.TICK_S)
                self._tick.set()
                self._tick = asyncio.Event()
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
            self._observer.restart()  # releases its memory

    async def _read_on(self, gather_s: float) -> None:
        """Reads, and begins anew after a failure, whatever it is: a feed must not end a worker."""
        while True:
            try:
                await self._read(gather_s)
            except (KafkaError, OSError) as error:
                self._failures[gather_s] = f"the broker does not answer: {error or type(error).__name__}"
                log.warning("feed interrupted, retried error=%r", error)
            except Exception as error:
                self._failures[gather_s] = f"the records cannot be read: {error!r}"
                log.exception("feed failed, retried")
            await asyncio.sleep(_RETRY_S)

    async def _read(self, gather_s: float) -> None:
        consumer = clients.standalone_consumer(self._settings, _PARTITION_BYTES, skip_removed=True, gather_s=gather_s)
        await consumer.start()
        try:
            await _Reading(self, consumer, gather_s).run()
        finally:
            await consumer.stop()

    def works(self, gather_s: float) -> None:
        """Takes note that the broker answers."""
        self._failures.pop(gather_s, None)

    def has_past(self, stream: Stream) -> bool:
        """Whether what was there when it began has been read of a stream: before that, nothing seen says nothing."""
        return stream.gather_s in self._with_past

    def past_read(self, gather_s: float) -> None:
        """Takes note that a connection has read what was there when it began."""
        self._with_past.add(gather_s)

    async def topics(self, gather_s: float) -> Mapping[Physical, Stream]:
        """The partitions to read with their streams, of one connection; those of earlier streams first."""
        async with clients.admin(self._settings) as admin:
            logical = {self._names.logical(t): t for t in await admin.list_topics() if t.startswith(self._names.prefix)}
            found = {physical: n for topic, physical in logical.items() if (n := self._stream_of(topic, gather_s)) >= 0}
            described = await admin.describe_topics(list(found)) if found else []
        counts = {topic["topic"]: len(topic["partitions"]) for topic in described}
        return {
            Physical(topic, p): self._streams[number]
            for topic, number in sorted(found.items(), key=lambda item: (item[1], item[0]))
            for p in range(counts.get(topic, 0))
        }

    def _stream_of(self, topic: str, gather_s: float) -> int:
        """Number of the stream that a topic belongs to; -1 if none does, or one of another connection."""
        number = next((number for number, stream in enumerate(self._streams) if stream.topics(topic)), -1)
        return number if number >= 0 and self._streams[number].gather_s == gather_s else -1

    def hand_over(self, records: Sequence[ObservedRecord], stream: Stream) -> int:
        """Hands records of a partition to the observer. Returns how many."""
        share = 1.0
        if stream.sampled:
            share = self.sampling.share if stream.keyed else self.sampling.partition_share
        topic = self._names.logical(records[0].topic)
        if stream.keyed:
            records = [record for record in records if self.sampling.keeps(record.key)]
        if records:
            self._observer.observe(topic, records, share)
        return len(records)

    def narrowed(self) -> None:
        """Tells the observer that fewer keys are read."""
        self._observer.narrow()

    def skipped(self, from_ms: int) -> None:
        """Tells the observer that everything since a time was left out."""
        self._observer.skip(from_ms, _now_ms())


class _Reading:
    """One connection to the broker."""

    def __init__(self, feed: Feed, consumer: AIOKafkaConsumer, gather_s: float) -> None:
        self._feed = feed
        self._gather_s = gather_s
        self._consumer = consumer
        self._streams: Mapping[Physical, Stream] = {}
        self._listed_s = 0.0
        self._caught_up = False
        self._assigned_s = 0.0
        self._newest_ms = 0
        self._past: dict[Physical, int] = {}
        """Ends when reading began, of partitions that have not been read so far."""

    async def run(self) -> None:
        while True:
            if time.monotonic() - self._listed_s > _TOPICS_S:
                await self._assign()
            fetched = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)
            if aiokafka_internals.fetcher_stopped(self._consumer):
                raise RuntimeError("the consumer has stopped fetching")
            self._feed.works(self._gather_s)
            sampled = 0
            for tp in sorted(fetched, key=self._rank):
                stream = self._streams[tp]
                handed_over = self._feed.hand_over(fetched[tp], stream)
                if stream.sampled:
                    sampled += handed_over
                    self._newest_ms = max(self._newest_ms, fetched[tp][-1].timestamp)
            self._note_past()
            await self._pace(sampled, busy=sum(map(len, fetched.values())) >= _MAX_RECORDS)

    def _note_past(self) -> None:
        if self._past:
            at = aiokafka_internals.positions(self._consumer)
            self._past = {tp: end for tp, end in self._past.items() if tp in at and at[tp] < end}
        if not self._past:
            self._feed.past_read(self._gather_s)

    def _rank(self, tp: Physical) -> int:
        return self._order[tp]

    async def _pace(self, sampled: int, *, busy: bool) -> None:
        if not self._caught_up:
            self._caught_up = not busy or time.monotonic() - self._assigned_s > _CATCHING_UP_S
            await asyncio.sleep(_BUSY_PAUSE_S)
            return
        if not any(stream.sampled for stream in self._streams.values()):
            latest = [tp for tp, stream in self._streams.items() if stream.latest]
            if busy:
                await self._go_to_end(latest)
            await asyncio.sleep(_LATEST_PAUSE_S)
            return
        before, share = self._feed.sampling.followed, self._feed.sampling.share
        after = self._feed.sampling.count(time.monotonic(), sampled)
        if self._feed.sampling.share < share:
            self._feed.narrowed()
        if after != before:
            await self._follow(before, after)
        elif busy and _now_ms() - self._newest_ms > _MOST_BEHIND_S * 1000:
            self._feed.skipped(self._newest_ms)
            await self._go_to_end(self._sampled(0, after))
            self._newest_ms = _now_ms()
        await asyncio.sleep(_BUSY_PAUSE_S if busy else _PAUSE_S)

    async def _follow(self, before: int, after: int) -> None:
        """Reads fewer partitions, or more, which continue at their end."""
        if after < before:
            self._consumer.pause(*self._sampled(after, before))
            return
        added = self._sampled(before, after)
        await self._go_to_end(added)
        self._consumer.resume(*added)

    async def _go_to_end(self, tps: Sequence[Physical]) -> None:
        """Continues at the end. aiokafka's own `seek_to_end` may wait for ever for a paused partition with a buffer."""
        ends = await aiokafka_internals.log_ends(self._consumer, tps, committed=True) if tps else {}
        for tp, end in ends.items():
            self._consumer.seek(tp, end)

    def _sampled(self, first: int, end: int) -> list[Physical]:
        return [tp for tp, stream in self._streams.items() if stream.sampled and first <= tp.partition < end]

    async def _assign(self) -> None:
        """Starts with the past of topics that are new."""
        self._listed_s = time.monotonic()
        streams = await self._feed.topics(self._gather_s)
        added = [tp for tp in streams if tp not in self._streams]
        if not added and len(streams) == len(self._streams):
            return
        positions = {tp: at for tp, at in aiokafka_internals.positions(self._consumer).items() if tp in streams}
        positions |= await self._starts({tp: streams[tp] for tp in added})
        self._streams, self._order = streams, {tp: number for number, tp in enumerate(streams)}
        self._caught_up = False
        self._assigned_s = time.monotonic()
        self._feed.sampling.restart()
        # No await between assign and seek: a partition without a position would get the end as its position.
        self._consumer.assign(list(positions))
        for tp, offset in positions.items():
            self._consumer.seek(tp, offset)
        if paused := self._sampled(self._feed.sampling.followed, self._feed.sampling.partitions):
            self._consumer.pause(*paused)

    async def _starts(self, streams: Mapping[Physical, Stream]) -> dict[Physical, int]:
        """Where to begin: as far back as a stream says, in time and in records."""
        if not streams:
            return {}
        ends = await aiokafka_internals.log_ends(self._consumer, list(streams), committed=True)
        starts = {tp: max(0, end - streams[tp].past_records) for tp, end in ends.items()}
        by_time = {tp: _now_ms() - int(s.past_s * 1000) for tp, s in streams.items() if s.past_s is not None}
        if by_time:
            for tp, found in (await self._consumer.offsets_for_times(by_time)).items():
                starts[tp] = max(starts[tp], ends[tp] if found is None else min(found.offset, ends[tp]))
        self._past |= {tp: end for tp, end in ends.items() if starts[tp] < end}
        return starts


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
