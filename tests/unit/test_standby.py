"""Following changelogs, on a broker in memory that does what brokers do."""

import asyncio
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
from aiokafka.errors import KafkaConnectionError, OffsetOutOfRangeError
from prometheus_client import CollectorRegistry

from runtime.data_loss.losses import LossReporter
from runtime.loop.standby import StandbyReplicas
from runtime.metrics.loop import LoopMetrics
from runtime.model.records import TopicPartition
from runtime.model.service import Input, Service, Table
from runtime.model.topology import Topology
from runtime.state.stores import MemoryStore, MemoryStores
from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY

LEVELS, SEEN = Table("keeper-levels", StockLevel), Table("keeper-seen", StockLevel)
KEEPER = Service("keeper", (Input(WAREHOUSE_INVENTORY, lambda *_: None),), (), (LEVELS, SEEN))
SIX = b"a", b"b", b"c", b"d", b"e", b"f"


class Row(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None
    last_offset: int | None = None


class Broker:
    """Logs in memory. `None` in a log is the marker of a transaction; `open` hides what comes from that offset on."""

    def __init__(self):
        self.logs = {}
        self.starts = {}
        self.open = {}
        self.away = False
        self.readers = self.most_readers = 0
        self.asked = 0

    def write(self, table, partition, *rows):
        log = self.logs.setdefault(TopicPartition(table.changelog, partition), [])
        for row in rows:
            log.append(row and Row(len(log), *row))

    def reset(self, table, partition):
        self.logs.pop(TopicPartition(table.changelog, partition), None)

    def _answer(self, partitions, offset):
        if self.away:
            raise KafkaConnectionError("away")
        return {tp: offset(tp) for tp in partitions}

    async def log_ids(self, topics):
        return {}

    async def log_starts(self, partitions):
        await asyncio.sleep(0)
        return self._answer(partitions, lambda tp: self.starts.get(tp, 0))

    async def log_ends(self, partitions, *, committed):
        await asyncio.sleep(0)
        self.asked += 1
        return self._answer(partitions, self._stable if committed else lambda tp: len(self.logs.get(tp, ())))

    def _stable(self, tp):
        return self.open.get(tp, len(self.logs.get(tp, ())))

    @asynccontextmanager
    async def reading(self, positions):
        self.readers += 1
        self.most_readers = max(self.most_readers, self.readers)
        try:
            yield Reading(self, dict(positions))
        finally:
            await asyncio.sleep(0.002)
            self.readers -= 1


class Reading:
    MOST = 2

    def __init__(self, broker, positions):
        self._broker = broker
        self._positions = positions

    async def rows(self):
        await asyncio.sleep(0.001)
        result = {}
        for tp, position in self._positions.items():
            log = self._broker.logs.get(tp, [])
            if position > len(log) and not self._broker.away:
                raise OffsetOutOfRangeError({tp: position})
            end = min(self._broker._stable(tp), position + self.MOST) if not self._broker.away else position
            if rows := [row for row in log[position:end] if row]:
                result[tp] = rows
            self._positions[tp] = max(position, end)
        return result

    def positions(self):
        return self._positions


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
async def follower(broker, monkeypatch):
    monkeypatch.setattr(StandbyReplicas, "MEASURE_S", 0.005)
    monkeypatch.setattr(StandbyReplicas, "RETRY_S", 0.005)
    confirmed = asyncio.get_running_loop().time
    follower = StandbyReplicas(Topology((KEEPER,)), MemoryStores(), broker, LoopMetrics(CollectorRegistry()), confirmed)
    yield follower
    await follower.stop()
    assert broker.readers == 0
    assert broker.most_readers <= 1, "one connection reads one thing at a time"


def copy(follower, table=LEVELS, partition=0):
    store = follower._stores.peek(table.name, partition)
    return None if store is None else store.rows


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def test_a_copy_has_what_was_there_and_what_comes(broker, follower):
    broker.write(LEVELS, 0, (b"a", b"1"), (b"b", b"2"), None)
    broker.write(SEEN, 1, (b"x", b"1"))
    follower.follow({0, 1})
    await until(lambda: copy(follower) == {b"a": b"1", b"b": b"2"} and copy(follower, SEEN, 1) == {b"x": b"1"})

    broker.write(LEVELS, 0, (b"a", None), (b"c", b"3"), None)
    await until(lambda: copy(follower) == {b"b": b"2", b"c": b"3"})


async def test_what_is_not_committed_is_not_in_the_copy(broker, follower):
    broker.write(LEVELS, 0, (b"a", b"1"), None, (b"a", b"2"))
    broker.open[TopicPartition(LEVELS.changelog, 0)] = 2
    follower.follow({0})
    await until(lambda: follower.lag == {0: 0})

    assert copy(follower) == {b"a": b"1"}


async def test_lag_and_age_tell_how_far_behind_a_copy_is(broker, follower, monkeypatch):
    assert follower.age(LEVELS.name, 0) is None
    gate = asyncio.Event()
    rows = Reading.rows

    async def held(self):
        await asyncio.wait([asyncio.ensure_future(gate.wait())], timeout=0.002)
        return await rows(self) if gate.is_set() else {}

    monkeypatch.setattr(Reading, "rows", held)
    broker.write(LEVELS, 0, *[(key, b"1") for key in SIX])
    broker.write(SEEN, 0, (b"x", b"1"))
    follower.follow({0})
    await until(lambda: follower.lag == {0: 7})
    assert follower.age(LEVELS.name, 0) is None

    gate.set()
    await until(lambda: follower.lag == {0: 0})
    assert 0 <= follower.age(LEVELS.name, 0) < 60


async def test_a_copy_whose_broker_is_away_grows_old_and_is_young_again_afterwards(broker, follower):
    broker.write(LEVELS, 0, (b"a", b"1"))
    follower.follow({0})
    await until(lambda: follower.lag == {0: 0})
    broker.away = True
    broker.write(LEVELS, 0, (b"b", b"2"))
    await until(lambda: follower.age(LEVELS.name, 0) > 0.3)
    assert copy(follower) == {b"a": b"1"}, "it still has what it had"

    broker.away = False
    await until(lambda: copy(follower) == {b"a": b"1", b"b": b"2"})
    await until(lambda: follower.age(LEVELS.name, 0) < 0.3)


async def test_a_changelog_that_begins_anew_is_followed_from_its_start(broker, follower):
    broker.write(LEVELS, 0, *[(key, b"1") for key in SIX])
    follower.follow({0})
    await until(lambda: follower.lag == {0: 0})

    broker.reset(LEVELS, 0)
    broker.write(LEVELS, 0, (b"z", b"9"))
    await until(lambda: copy(follower) == {b"z": b"9"})


async def test_what_a_copy_s_changelog_no_longer_has_is_told(broker, follower, caplog):
    broker.write(LEVELS, 0, *[(key, b"1") for key in SIX])
    broker.starts[TopicPartition(LEVELS.changelog, 0)] = 3
    follower.follow({0})
    await until(lambda: follower.lag == {0: 0})
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert f"records lost topic={LEVELS.changelog} partition=0 first=0 last=2 count=3 path=standby" in told


async def test_a_copy_that_is_to_stop_at_a_loss_ends_the_worker_and_keeps_what_it_has(broker):
    failures = []
    lost = LossReporter(LoopMetrics(CollectorRegistry()), stop=True, failed=failures.append)
    confirmed = asyncio.get_running_loop().time
    follower = StandbyReplicas(
        Topology((KEEPER,)), MemoryStores(), broker, LoopMetrics(CollectorRegistry()), confirmed, lost
    )
    follower._stores.open(LEVELS.name, 0).apply({b"gone": b"1"}, 0)
    broker.write(LEVELS, 0, *[(key, b"1") for key in SIX])
    broker.starts[TopicPartition(LEVELS.changelog, 0)] = 3
    follower.follow({0})
    await until(lambda: failures)
    await follower.stop()
    assert "ON_LOST_RECORDS=continue" in str(failures[0])
    assert copy(follower) == {b"gone": b"1"}


async def test_a_copy_that_lacks_what_is_no_longer_kept_is_rebuilt(broker, follower):
    store = follower._stores.open(LEVELS.name, 0)
    store.apply({b"gone": b"1"}, 0)
    broker.write(LEVELS, 0, *[(key, b"1") for key in SIX])
    broker.starts[TopicPartition(LEVELS.changelog, 0)] = 3
    follower.follow({0})
    await until(lambda: follower.lag == {0: 0})

    assert copy(follower) == dict.fromkeys(SIX[3:], b"1")


async def test_a_copy_goes_on_where_its_store_ends(broker, follower):
    broker.write(LEVELS, 0, *[(key, b"1") for key in SIX])
    follower._stores.open(LEVELS.name, 0).apply({b"mine": b"1"}, 3)
    follower.follow({0})
    await until(lambda: follower.lag == {0: 0})

    assert copy(follower) == {b"mine": b"1", b"e": b"1", b"f": b"1"}
    assert follower._stores.open(LEVELS.name, 0).offset == 5


async def test_the_offset_of_a_copy_passes_over_markers(broker, follower):
    broker.write(LEVELS, 0, (b"a", b"1"), None, None)
    follower.follow({0})
    await until(lambda: follower._stores.open(LEVELS.name, 0).offset == 2)


async def test_a_store_is_let_alone_from_the_moment_its_partition_is_not_followed(broker, follower):
    follower.follow({0, 1})
    await until(lambda: follower.lag == {0: 0, 1: 0})
    for table in (LEVELS, SEEN):
        for partition in (0, 1):
            broker.write(table, partition, *[(key, b"1") for key in SIX])
    follower.follow({1})
    stores = [follower._stores.open(table.name, 0) for table in (LEVELS, SEEN)]

    for store in stores:
        store.apply = store.clear = store.mark_complete = pytest.fail
    await until(lambda: follower.lag == {1: 0} and len(copy(follower, LEVELS, 1)) == 6)
    assert [store.rows for store in stores] == [{}, {}]


async def test_what_is_still_on_its_way_when_a_partition_goes_is_not_applied(broker, follower, monkeypatch):
    rows, arrived = Reading.rows, asyncio.Event()

    async def unstoppable(self):
        """As a client that has its answer already when it is told to stop."""
        try:
            arrived.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            monkeypatch.setattr(Reading, "rows", rows)
        return await rows(self)

    monkeypatch.setattr(Reading, "rows", unstoppable)
    broker.write(LEVELS, 0, (b"a", b"1"))
    follower.follow({0})
    await arrived.wait()
    store = follower._stores.open(LEVELS.name, 0)
    follower.follow({1})
    await until(lambda: follower.lag == {1: 0})
    assert store.rows == {}


async def test_changes_back_to_back_end_with_the_last_one(broker, follower):
    for partition in range(4):
        broker.write(LEVELS, partition, (b"a", b"1"))
    for partitions in ({0}, {0, 1}, (), {2}, {2, 3}):
        follower.follow(partitions)
        await asyncio.sleep(0)
    await until(lambda: follower.lag == {2: 0, 3: 0})

    assert follower.partitions == {2, 3}
    assert copy(follower, LEVELS, 3) == {b"a": b"1"}


async def test_what_was_owned_is_as_old_as_the_last_word_of_the_group(broker, follower):
    now = asyncio.get_running_loop().time()
    follower._confirmed = lambda: now - 200
    follower.mark_complete({0})

    assert 200 <= follower.age(LEVELS.name, 0) < 300
    assert follower.age(LEVELS.name, 1) is None


async def test_services_without_tables_have_nothing_to_follow(broker):
    plain = Service("plain", (Input(WAREHOUSE_INVENTORY, lambda *_: None),), ())
    confirmed = asyncio.get_running_loop().time
    follower = StandbyReplicas(Topology((plain,)), MemoryStores(), broker, LoopMetrics(CollectorRegistry()), confirmed)
    follower.follow({0, 1})
    await asyncio.sleep(0.02)

    assert (follower.partitions, broker.asked, broker.most_readers) == (frozenset(), 0, 0)
    await follower.stop()


async def test_nothing_is_asked_of_the_broker_where_nothing_is_followed(broker, follower):
    follower.follow({0})
    await until(lambda: follower.lag == {0: 0})
    follower.follow(())
    await until(lambda: broker.readers == 0)
    asked = broker.asked
    await asyncio.sleep(0.05)
    assert (broker.asked, broker.readers) == (asked, 0)


async def test_a_copy_that_was_cut_off_for_too_long_is_rebuilt(broker, follower, monkeypatch):
    store = follower._stores.open(LEVELS.name, 0)
    store.apply({b"deleted-long-ago": b"1"}, 0)
    broker.write(LEVELS, 0, *[(key, b"1") for key in SIX])
    monkeypatch.setattr(MemoryStore, "stale", property(lambda store: b"deleted-long-ago" in store.rows))
    follower.follow({0})
    await until(lambda: follower.lag == {0: 0})

    assert copy(follower) == dict.fromkeys(SIX, b"1")


async def test_what_was_owned_until_now_is_complete(broker, follower):
    noted = []
    store = follower._stores.open(LEVELS.name, 0)
    store.apply({b"a": b"1"}, 7)
    store.mark_complete = noted.append
    follower.mark_complete({0, 1})
    assert noted == [7]

    now = asyncio.get_running_loop().time()
    follower._confirmed = lambda: now - 3600  # it was away for an hour, and knows no better
    follower.mark_complete({0, 1})
    assert noted == [7]
