"""At least once: redo records, then rows and outputs, then offsets, so that a crash at any point loses nothing."""

import asyncio
import contextlib

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, RequestTimedOutError

from runtime.errors import CommitFenced, CommitInDoubt
from runtime.loop import checkpoint as checkpoints
from runtime.loop.checkpoint import AtLeastOnce
from runtime.model.records import Membership, TopicPartition, Write, Writes
from runtime.model.redo_progress import RedoProgress

ME = Membership(1, "me")


class Producer:
    """Records its writes. Fails after `fails_at` of them. `commit` commits offsets."""

    def __init__(self, fails_at: int | None = None, commit=lambda _: asyncio.sleep(0)) -> None:
        self.commit_offsets = commit
        self.sent: list[str] = []
        self.trips: list[list[str]] = []
        """What was sent together."""
        self.fails_at = fails_at
        self.ended = False

    async def start(self):
        pass

    async def end(self):
        self.ended = True

    async def commit(self, offsets, membership):
        assert membership == ME
        await self.commit_offsets(offsets)

    def _end(self, topic):
        return sum(sent.split(" ")[0] == topic for sent in self.sent) - 1

    async def send(self, *groups):
        written = [w for group in groups for w in group]
        if written and len(self.sent) == self.fails_at:
            raise KafkaError
        self.trips.append([f"{w.topic}{'' if w.value else ' deleted'}" for w in written])
        self.sent += self.trips[-1]
        return {TopicPartition(w.topic, w.partition): self._end(w.topic) for w in written}


class Offsets:
    """Notes committed offsets, each with what the producer had sent by then."""

    def __init__(self) -> None:
        self.committed: list[tuple[dict, list[str]]] = []
        self.producer = Producer(commit=self)

    async def __call__(self, positions):
        self.committed.append((dict(positions), list(self.producer.sent)))


def batch(key: bytes = b"r-0", progress: RedoProgress | None = None) -> Writes:
    """A batch with a redo record under this key. `progress`: of batches before it."""
    changelog = [Write("s-rows-changelog", 0, b"k", None), Write("s-timers-changelog", 0, b"l", b"{}")]
    redo = [Write("s-redo-changelog", 0, key, b"{}")]
    outputs, offsets = [Write("out", 0, b"k", b"{}")], {TopicPartition("in", 0): 7}
    return Writes(changelog, outputs, offsets, redo, RedoProgress({}) if progress is None else progress)


REDO, *WRITTEN, CLEARED = SENT = [
    "s-redo-changelog",
    "s-rows-changelog deleted",
    "s-timers-changelog",
    "out",
    "s-redo-changelog deleted",
]


async def test_redo_records_are_written_before_anything_else_and_offsets_after_rows():
    offsets = Offsets()
    checkpoint = AtLeastOnce(lambda: offsets.producer, 5)
    await checkpoint.commit(batch(), ME)
    await asyncio.sleep(0)
    assert offsets.committed == [({TopicPartition("in", 0): 7}, [REDO, *WRITTEN])], "they wait for no tombstones"
    await checkpoint.flush()

    assert offsets.producer.trips == [[REDO], WRITTEN, [CLEARED]]


async def test_a_batch_overwrites_the_redo_records_of_the_last_one_or_clears_them_first():
    producer, progress = Producer(), RedoProgress({})
    checkpoint = AtLeastOnce(lambda: producer, 5)
    for key in (b"r-0", b"r-0", b"r-1"):
        await checkpoint.commit(batch(key, progress), ME)
    small = Writes([Write("s-rows-changelog", 0, b"k", b"{}")], redo_progress=progress)
    for _ in range(2):
        await checkpoint.commit(small, ME)
    await checkpoint.flush()

    row = ["s-rows-changelog"]
    same, other = [[REDO], WRITTEN], [[CLEARED, REDO], WRITTEN]
    assert producer.trips == [*same, *same, *other, [CLEARED], row, row]


async def test_redo_records_are_cleared_once_no_batch_follows(monkeypatch):
    monkeypatch.setattr(AtLeastOnce, "CLEAR_S", 0.001)
    producer, progress = Producer(), RedoProgress({})
    checkpoint = AtLeastOnce(lambda: producer, 5)
    for _ in range(2):
        await checkpoint.commit(batch(progress=progress), ME)
        async with asyncio.timeout(60):
            while producer.sent[-1] != CLEARED:
                await asyncio.sleep(0.001)
    await checkpoint.stop()
    assert producer.trips == [[REDO], WRITTEN, [CLEARED]] * 2


async def test_a_failed_batch_leaves_its_redo_records_to_the_restore(monkeypatch):
    """A tombstone of the batch before it may have the same key, and the broker may have the records."""
    monkeypatch.setattr(AtLeastOnce, "CLEAR_S", 0.001)
    producer, progress = Producer(5), RedoProgress({})
    checkpoint = AtLeastOnce(lambda: producer, 5)
    await checkpoint.commit(batch(progress=progress), ME)
    with pytest.raises(CommitInDoubt):
        await checkpoint.commit(batch(progress=progress), ME)
    await asyncio.sleep(0.01)
    assert producer.trips == [[REDO], WRITTEN, [REDO]]


@pytest.mark.parametrize(("foreign", "trips"), [(0, [[REDO], WRITTEN, [CLEARED]]), (1, [[REDO]])])
async def test_after_records_of_another_worker_in_a_redo_table_a_batch_writes_no_rows(foreign, trips):
    producer, progress = Producer(), RedoProgress({TopicPartition(REDO, 0): -1 - foreign})
    checkpoint = AtLeastOnce(lambda: producer, 5)
    with pytest.raises(CommitInDoubt, match="another worker") if foreign else contextlib.nullcontext():
        await checkpoint.commit(batch(progress=progress), ME)
    await checkpoint.flush()

    assert producer.trips == trips


async def test_a_batch_writes_nothing_while_redo_records_are_being_cleared(monkeypatch):
    monkeypatch.setattr(AtLeastOnce, "CLEAR_S", 0)
    producer, gate, progress = Producer(), asyncio.Event(), RedoProgress({})
    send, clearing = producer.send, asyncio.Event()

    async def slowly(*groups):
        if groups[0][0].value is None and groups[0][0].topic.startswith("s-redo"):
            clearing.set()
            await gate.wait()
        return await send(*groups)

    producer.send = slowly
    checkpoint = AtLeastOnce(lambda: producer, 5)
    await checkpoint.commit(batch(progress=progress), ME)
    await clearing.wait()
    second = asyncio.create_task(checkpoint.commit(batch(progress=progress), ME))
    for _ in range(10):
        await asyncio.sleep(0)
    assert producer.trips == [[REDO], WRITTEN]
    gate.set()
    await second

    assert producer.trips[:5] == [[REDO], WRITTEN, [CLEARED], [REDO], WRITTEN]


@pytest.mark.parametrize("fails_at", [0, 1])
async def test_offsets_are_not_committed_past_failed_writes(fails_at):
    offsets = []

    async def commit(positions):
        offsets.append(positions)

    producers = [Producer(fails_at, commit), Producer(commit=commit)]

    checkpoint = AtLeastOnce(iter(producers).__next__, 5)
    with pytest.raises(CommitInDoubt):
        await checkpoint.commit(batch(), ME)
    assert offsets == []
    assert producers[0].ended

    await checkpoint.commit(batch(), ME)
    await checkpoint.flush()
    assert len(offsets) == 1


async def idle(checkpoint: AtLeastOnce) -> None:
    """Waits until the checkpoint clears redo records."""
    async with asyncio.timeout(60):
        while checkpoint._cleared is None:
            await asyncio.sleep(0.001)


async def test_redo_records_that_cannot_be_cleared_fail_the_next_batch_before_it_writes():
    producer, progress = Producer(4), RedoProgress({})
    checkpoint = AtLeastOnce(lambda: producer, 5)
    await checkpoint.commit(batch(progress=progress), ME)
    await idle(checkpoint)
    with pytest.raises(CommitInDoubt):
        await checkpoint.commit(batch(progress=progress), ME)

    assert producer.sent == [REDO, *WRITTEN]


async def test_clearing_that_takes_too_long_fails_the_next_batch_and_no_later_one(monkeypatch):
    monkeypatch.setattr(checkpoints, "PRODUCER_STOP_S", 0.05)
    offsets = []

    async def hang(*groups):
        if groups[0][0].value is None and groups[0][0].topic.startswith("s-redo"):
            await asyncio.Event().wait()
        return await send(*groups)

    async def commit(positions):
        offsets.append(positions)

    producers = [Producer(commit=commit), Producer(commit=commit)]
    send = producers[0].send

    producers[0].send = hang
    checkpoint = AtLeastOnce(iter(producers).__next__, 0.05)
    await checkpoint.commit(batch(), ME)
    await idle(checkpoint)
    with pytest.raises(CommitInDoubt):
        await checkpoint.commit(batch(), ME)
    assert producers[0].ended

    await checkpoint.commit(batch(), ME)
    await checkpoint.flush()
    assert len(offsets) == 2


async def test_a_worker_that_was_paused_past_its_session_sends_nothing():
    offsets, member = [], [True, False]

    async def commit(positions):
        offsets.append(positions)

    producer = Producer(commit=commit)
    checkpoint = AtLeastOnce(lambda: producer, 5, lambda: member.pop(0) if member else False)
    with pytest.raises(CommitFenced):
        await checkpoint.commit(batch(), ME)

    assert producer.sent == [REDO]
    assert offsets == []


async def test_a_failed_offset_commit_is_retried_without_a_next_batch(monkeypatch):
    monkeypatch.setattr(AtLeastOnce, "RETRY_S", 0.001)
    errors, offsets = [RequestTimedOutError(), OSError("the broker is unavailable")], []

    async def commit(positions):
        if errors:
            raise errors.pop()
        offsets.append(positions)

    checkpoint = AtLeastOnce(lambda: Producer(commit=commit), 5)
    await checkpoint.commit(batch(), ME)
    async with asyncio.timeout(60):
        while not offsets:
            await asyncio.sleep(0.001)
    assert errors == []


async def test_a_lasting_error_of_an_offset_commit_fails_the_next_batch():
    async def commit(positions):
        raise GroupAuthorizationFailedError

    checkpoint = AtLeastOnce(lambda: Producer(commit=commit), 5)
    await checkpoint.commit(batch(), ME)
    with pytest.raises(CommitInDoubt):
        await checkpoint.commit(batch(), ME)
