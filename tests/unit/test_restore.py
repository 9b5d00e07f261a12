"""What a restore reports of positions that the broker no longer has; on a broker in memory."""

from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from runtime.data_loss.losses import LossCause, LossPath, LossReporter, RecordsLost
from runtime.metrics.loop import LoopMetrics
from runtime.model.log_ids import CommittedOffset
from runtime.model.records import TopicPartition
from runtime.state import restore
from runtime.state.restore import Restorer
from runtime.state.stores import MemoryStore

PAID, STOCKED = TopicPartition("payments", 0), TopicPartition("warehouse-inventory", 0)
ROWS, TIMERS = TopicPartition("keeper-changelog", 0), TopicPartition("keeper-timers-changelog", 0)


def row(offset):
    return SimpleNamespace(last_offset=None, unreadable=None, offset=offset, key=b"%d" % offset, value=b"v")


class Broker:
    """Implements `runtime.state.restore.LogReader`: logs that begin and end as the test says."""

    def __init__(self):
        self.offsets = {}
        self.noted = {}
        self.ids = {}
        self.bounds = {}
        self.behind = {}
        """How often a leader that was just elected still tells an earlier end."""
        self.asked = 0

    async def stable_commits(self, partitions):
        return {
            tp: None if tp not in self.offsets else CommittedOffset(self.offsets[tp], self.noted.get(tp, ""))
            for tp in partitions
        }

    async def log_ids(self, topics):
        return {topic: self.ids[topic] for topic in topics if topic in self.ids}

    async def log_starts(self, partitions):
        return {tp: self.bounds.get(tp, (0, 0))[0] for tp in partitions}

    async def log_ends(self, partitions, *, committed):
        self.asked += 1
        result = {}
        for tp in partitions:
            late = self.behind.get(tp, 0)
            self.behind[tp] = max(0, late - 1)
            result[tp] = max(0, self.bounds.get(tp, (0, 0))[1] - (1 if late else 0))
        return result

    @asynccontextmanager
    async def reading(self, positions):
        at = dict(positions)

        async def rows():
            found = {}
            for tp, position in at.items():
                end = self.bounds[tp][1]
                if position < end:
                    found[tp] = [row(offset) for offset in range(position, end)]
                    at[tp] = end
            return found

        yield SimpleNamespace(rows=rows, positions=lambda: at)


@pytest.fixture
def broker(monkeypatch):
    monkeypatch.setattr(restore, "CONFIRM_S", 0.05)
    monkeypatch.setattr(Restorer, "POLL_S", 0.001)
    return Broker()


def logs(broker, **options):
    lost = LossReporter(LoopMetrics(CollectorRegistry()), **options)
    return Restorer(broker, lost, [ROWS.topic, TIMERS.topic]), lost


def losses(lost, *owned):
    return [(loss.topic, loss.first, loss.end, loss.cause) for loss in lost.pop(set(owned))]


async def test_records_removed_before_they_were_read_are_skipped_and_reported(broker):
    found, lost = logs(broker)
    broker.offsets = {PAID: 3, STOCKED: 3}
    broker.bounds = {PAID: (7, 20), STOCKED: (0, 20)}
    assert await found.committed([PAID, STOCKED]) == {PAID: 7, STOCKED: 3}
    assert losses(lost, PAID, STOCKED) == [("payments", 3, 7, LossCause.REMOVED)]


async def test_a_loss_that_is_in_no_batch_yet_is_found_again_and_logged_once(broker, caplog):
    found, lost = logs(broker)
    broker.offsets, broker.bounds = {PAID: 3}, {PAID: (7, 20)}
    for _ in range(3):
        await found.committed([PAID])
        assert losses(lost, PAID) == [("payments", 3, 7, LossCause.REMOVED)]
    assert len(caplog.records) == 1
    broker.offsets = {PAID: 7}
    await found.committed([PAID])
    assert losses(lost, PAID) == []


async def test_a_loss_in_a_partition_that_is_no_longer_owned_is_dropped(broker):
    found, lost = logs(broker)
    broker.offsets, broker.bounds = {PAID: 3}, {PAID: (7, 20)}
    await found.committed([PAID])  # cut short by a rebalance
    await found.committed([STOCKED])
    assert losses(lost, PAID, STOCKED) == []


async def test_an_offset_beyond_the_log_end_continues_at_the_log_start(broker):
    found, lost = logs(broker)
    broker.offsets, broker.bounds = {PAID: 9}, {PAID: (0, 2)}
    assert await found.committed([PAID]) == {PAID: 0}
    assert losses(lost, PAID) == [("payments", 2, 9, LossCause.CUT_OFF)]


async def test_a_leader_whose_high_watermark_lags_has_lost_nothing(broker, monkeypatch):
    monkeypatch.setattr(restore, "CONFIRM_S", 60)
    found, lost = logs(broker)
    broker.offsets, broker.bounds, broker.behind = {PAID: 20}, {PAID: (0, 20)}, {PAID: 5}
    assert await found.committed([PAID]) == {PAID: 20}
    assert losses(lost, PAID) == []
    store = MemoryStore()
    store.apply({b"0": b"v"}, 9)
    broker.bounds[ROWS], broker.behind = (0, 10), {ROWS: 5}
    await found.restore({ROWS: store}, lambda *_: None)
    assert store.rows == {b"0": b"v"}, "neither cleared nor read again"


async def test_state_without_committed_offsets_means_that_they_expired(broker):
    found, lost = logs(broker)
    broker.bounds = {PAID: (7, 20), STOCKED: (0, 20), TIMERS: (0, 4)}
    assert await found.committed([PAID, STOCKED]) == {PAID: 7, STOCKED: 0}
    assert losses(lost, PAID, STOCKED) == [("payments", 0, 7, LossCause.OFFSETS_GONE)]


@pytest.mark.parametrize(
    ("offsets", "bounds"),
    [
        pytest.param({}, {PAID: (7, 20), ROWS: (0, 0)}, id="a service that has never run"),
        pytest.param({STOCKED: 3}, {PAID: (7, 20), STOCKED: (0, 9), ROWS: (0, 4)}, id="a topic it did not read before"),
        pytest.param({}, {PAID: (0, 20), ROWS: (0, 4)}, id="nothing was removed"),
    ],
)
async def test_a_group_that_starts_at_the_log_start_has_lost_nothing(broker, offsets, bounds):
    found, lost = logs(broker)
    broker.offsets, broker.bounds = offsets, bounds
    at = await found.committed([PAID, STOCKED])
    assert at[PAID] == bounds[PAID][0]
    assert losses(lost, PAID, STOCKED) == []


async def test_stop_raises_before_anything_is_skipped(broker):
    failures = []
    found, lost = logs(broker, stop=True, failed=failures.append)
    broker.offsets, broker.bounds = {PAID: 3}, {PAID: (7, 20)}
    for _ in range(2):
        with pytest.raises(RecordsLost, match=r"payments partition 0 offsets 3 to 6"):
            await found.committed([PAID])
    assert losses(lost, PAID) == []
    assert len(failures) == 2


def stored(offset):
    store = MemoryStore()
    store.apply({b"old": b"v"}, offset)
    return store


@pytest.mark.parametrize(
    ("store", "bounds", "rows", "gone"),
    [
        pytest.param(stored(9), (0, 4), 4, (4, 10, LossCause.CUT_OFF), id="made anew, and written"),
        pytest.param(stored(9), (0, 0), 0, (0, 10, LossCause.CUT_OFF), id="made anew, and empty"),
        pytest.param(stored(2), (6, 9), 3, (0, 6, LossCause.REMOVED), id="rows removed that it lacks"),
        pytest.param(MemoryStore(), (6, 9), 3, (0, 6, LossCause.REMOVED), id="rows removed, and an empty disk"),
        pytest.param(stored(5), (6, 9), 4, None, id="rows removed that it has"),
        pytest.param(MemoryStore(), (0, 9), 9, None, id="an empty disk"),
    ],
)
async def test_rows_missing_in_a_changelog_are_reported_and_persisted(broker, store, bounds, rows, gone):
    kept = []

    async def keep(loss):
        assert store.rows.get(b"old") == (b"v" if store.offset is not None else None), "before anything is cleared"
        kept.append((loss.first, loss.end, loss.cause))
        assert loss.path is LossPath.CHANGELOG

    found, _ = logs(broker, persist=keep)
    broker.bounds[ROWS] = bounds
    await found.restore({ROWS: store}, lambda *_: None)
    assert len(store.rows) == rows
    assert kept == ([gone] if gone else [])


async def test_stop_does_not_clear_the_store_of_a_recreated_changelog(broker):
    found, _ = logs(broker, stop=True)
    store = stored(9)
    with pytest.raises(RecordsLost, match="keeper-changelog"):
        await found.restore({ROWS: store}, lambda *_: None)
    assert store.rows == {b"old": b"v"}


async def test_a_store_is_not_cleared_before_its_loss_is_persisted(broker):
    away = True

    async def keep(loss):
        if away:
            raise OSError("the broker is away")

    found, _ = logs(broker, persist=keep)
    store = stored(9)
    with pytest.raises(OSError, match="away"):
        await found.restore({ROWS: store}, lambda *_: None)
    assert store.rows == {b"old": b"v"}
    away = False
    await found.restore({ROWS: store}, lambda *_: None)
    assert store.rows == {}


IDS = {"payments": "here/P1", "warehouse-inventory": "here/W1", ROWS.topic: "here/R1", TIMERS.topic: "here/T1"}


async def committed_by(broker, *partitions, offset):
    """A group has run, and committed this offset of each partition."""
    metadata = {}
    lost = LossReporter(LoopMetrics(CollectorRegistry()))
    await Restorer(broker, lost, [ROWS.topic, TIMERS.topic], metadata).committed(partitions)
    broker.offsets |= dict.fromkeys(partitions, offset)
    broker.noted |= metadata


async def test_a_recreated_topic_is_detected_although_it_is_longer_by_now(broker):
    broker.ids, broker.bounds = dict(IDS), {PAID: (0, 50), STOCKED: (0, 50)}
    await committed_by(broker, PAID, STOCKED, offset=9)
    found, lost = logs(broker)
    assert await found.committed([PAID, STOCKED]) == {PAID: 9, STOCKED: 9}
    assert losses(lost, PAID, STOCKED) == []

    broker.ids["payments"] = "here/P2"
    assert await found.committed([PAID, STOCKED]) == {PAID: 0, STOCKED: 9}
    assert losses(lost, PAID, STOCKED) == [("payments", 0, 9, LossCause.RECREATED)]

    del broker.offsets[PAID]  # the broker deletes them with the topic
    assert await found.committed([PAID, STOCKED]) == {PAID: 0, STOCKED: 9}
    assert losses(lost, PAID, STOCKED) == [("payments", 0, 0, LossCause.RECREATED)]

    await committed_by(broker, PAID, offset=50)
    assert await found.committed([PAID, STOCKED]) == {PAID: 50, STOCKED: 9}
    assert losses(lost, PAID, STOCKED) == [], "it has been passed over"


async def restored(broker, store, **options):
    """What a takeover says is lost of the changelogs."""
    kept = []

    async def keep(loss):
        kept.append((loss.topic, loss.first, loss.end, loss.cause))

    found, _ = logs(broker, persist=keep, **options)
    await found.committed([PAID, STOCKED])
    await found.restore({ROWS: store}, lambda *_: None)
    return kept


async def test_a_recreated_changelog_is_detected_on_an_empty_disk(broker):
    broker.ids, broker.bounds = dict(IDS), {PAID: (0, 50), STOCKED: (0, 50), ROWS: (0, 4)}
    await committed_by(broker, PAID, STOCKED, offset=9)
    assert await restored(broker, MemoryStore()) == []

    broker.ids[ROWS.topic], broker.bounds[ROWS] = "here/R2", (0, 0)
    assert await restored(broker, MemoryStore()) == [(ROWS.topic, 0, 0, LossCause.RECREATED)]
    with pytest.raises(RecordsLost, match="keeper-changelog partition 0 offsets 0 to unknown"):
        await restored(broker, MemoryStore(), stop=True)
    store = MemoryStore()
    await restored(broker, store)
    assert await restored(broker, store) == [], "this store is of the new one"

    await committed_by(broker, PAID, offset=9)  # the other input keeps its old note
    assert await restored(broker, MemoryStore()) == []


async def test_a_recreated_changelog_is_detected_by_a_store_that_is_behind(broker):
    broker.ids, broker.bounds = dict(IDS), {ROWS: (0, 4)}
    store = MemoryStore()
    assert await restored(broker, store) == []
    assert len(store.rows) == 4

    broker.ids[ROWS.topic], broker.bounds[ROWS] = "here/R2", (0, 9)
    assert await restored(broker, store) == [(ROWS.topic, 0, 4, LossCause.RECREATED)]
    assert len(store.rows) == 9
    assert await restored(broker, store) == []


async def test_a_new_table_has_lost_nothing(broker):
    broker.ids, broker.bounds = {k: v for k, v in IDS.items() if k != ROWS.topic}, {PAID: (0, 50)}
    await committed_by(broker, PAID, STOCKED, offset=9)
    broker.ids = dict(IDS)
    assert await restored(broker, MemoryStore()) == []
