"""Standby replicas, on a broker in memory."""

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
    """Logs in memory. `None` in a log is a transaction marker; `open` is the offset of the first open transaction."""

    def __init__(self):
        self.logs = {}
        self.starts = {}
        self.open = {}
        self.unavailable = False
        self.readers = self.most_readers = 0
        self.requests = 0

    def write(self, table, partition, *rows):
        log = self.logs.setdefault(TopicPartition(table.changelog, partition), [])
        for row in rows:
            log.append(row and Row(len(log), *row))

    def reset(self, table, partition):
        self.logs.pop(TopicPartition(table.changelog, partition), None)

    def _answer(self, partitions, offset):
        if self.unavailable:
            raise KafkaConnectionError("unavailable")
        return {tp: offset(tp) for tp in partitions}

    async def log_ids(self, topics):
        return {}

    async def log_starts(self, partitions):
        await asyncio.sleep(0)
        return self._answer(partitions, lambda tp: self.starts.get(tp, 0))

    async def log_ends(self, partitions, *, committed):
        await asyncio.sleep(0)
        self.requests += 1
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
            if position > len(log) and not self._broker.unavailable:
                raise OffsetOutOfRangeError({tp: position})
            end = min(self._broker._stable(tp), position + self.MOST) if not self._broker.unavailable else position
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
async def standby(broker, monkeypatch):
    monkeypatch.setattr(StandbyReplicas, "MEASURE_S", 0.005)
    monkeypatch.setattr(StandbyReplicas, "RETRY_S", 0.005)
    confirmed = asyncio.get_running_loop().time
    standby = StandbyReplicas(Topology((KEEPER,)), MemoryStores(), broker, LoopMetrics(CollectorRegistry()), confirmed)
    yield standby
    await standby.stop()
    assert broker.readers == 0
    assert broker.most_readers <= 1, "the connection has one reader at a time"


def rows_of(standby, table=LEVELS, partition=0):
    store = standby._stores.peek(table.name, partition)
    return None if store is None else store.rows


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def test_a_standby_has_earlier_and_later_rows(broker, standby):
    broker.write(LEVELS, 0, (b"a", b"1"), (b"b", b"2"), None)
    broker.write(SEEN, 1, (b"x", b"1"))
    standby.follow({0, 1})
    await until(lambda: rows_of(standby) == {b"a": b"1", b"b": b"2"} and rows_of(standby, SEEN, 1) == {b"x": b"1"})

    broker.write(LEVELS, 0, (b"a", None), (b"c", b"3"), None)
    await until(lambda: rows_of(standby) == {b"b": b"2", b"c": b"3"})


async def test_uncommitted_rows_are_not_in_the_standby(broker, standby):
    broker.write(LEVELS, 0, (b"a", b"1"), None, (b"a", b"2"))
    broker.open[TopicPartition(LEVELS.changelog, 0)] = 2
    standby.follow({0})
    await until(lambda: standby.lag == {0: 0})

    assert rows_of(standby) == {b"a": b"1"}


async def test_lag_and_age_show_how_far_behind_a_standby_is(broker, standby, monkeypatch):
    assert standby.age(LEVELS.name, 0) is None
    gate = asyncio.Event()
    rows = Reading.rows

    async def held(self):
        await asyncio.wait([asyncio.ensure_future(gate.wait())], timeout=0.002)
        return await rows(self) if gate.is_set() else {}

    monkeypatch.setattr(Reading, "rows", held)
    broker.write(LEVELS, 0, *[(key, b"1") for key in SIX])
    broker.write(SEEN, 0, (b"x", b"1"))
    standby.follow({0})
    await until(lambda: standby.lag == {0: 7})
    assert standby.age(LEVELS.name, 0) is None

    gate.set()
    await until(lambda: standby.lag == {0: 0})
    assert 0 <= standby.age(LEVELS.name, 0) < 60


async def test_the_age_of_a_standby_grows_while_the_broker_is_unavailable(broker, standby):
    broker.write(LEVELS, 0, (b"a", b"1"))
    standby.follow({0})
    await until(lambda: standby.lag == {0: 0})
    broker.unavailable = True
    broker.write(LEVELS, 0, (b"b", b"2"))
    await until(lambda: standby.age(LEVELS.name, 0) > 0.3)
    assert rows_of(standby) == {b"a": b"1"}, "it keeps its rows"

    broker.unavailable = False
    await until(lambda: rows_of(standby) == {b"a": b"1", b"b": b"2"})
    await until(lambda: standby.age(LEVELS.name, 0) < 0.3)


async def test_a_changelog_that_was_created_anew_is_followed_from_its_start(broker, standby):
    broker.write(LEVELS, 0, *[(key, b"1") for key in SIX])
    standby.follow({0})
    await until(lambda: standby.lag == {0: 0})

    broker.reset(LEVELS, 0)
    broker.write(LEVELS, 0, (b"z", b"9"))
    await until(lambda: rows_of(standby) == {b"z": b"9"})


async def test_lost_changelog_records_are_logged(broker, standby, caplog):
    broker.write(LEVELS, 0, *[(key, b"1") for key in SIX])
    broker.starts[TopicPartition(LEVELS.changelog, 0)] = 3
    standby.follow({0})
    await until(lambda: standby.lag == {0: 0})
    [message] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert f"records lost topic={LEVELS.changelog} partition=0 first=0 last=2 count=3 path=standby" in message


async def test_a_loss_ends_the_worker_if_set_and_the_standby_keeps_its_rows(broker):
    failures = []
    lost = LossReporter(LoopMetrics(CollectorRegistry()), stop=True, failed=failures.append)
    confirmed = asyncio.get_running_loop().time
    standby = StandbyReplicas(
        Topology((KEEPER,)), MemoryStores(), broker, LoopMetrics(CollectorRegistry()), confirmed, lost
    )
    standby._stores.open(LEVELS.name, 0).apply({b"gone": b"1"}, 0)
    broker.write(LEVELS, 0, *[(key, b"1") for key in SIX])
    broker.starts[TopicPartition(LEVELS.changelog, 0)] = 3
    standby.follow({0})
    await until(lambda: failures)
    await standby.stop()
    assert "ON_LOST_RECORDS=continue" in str(failures[0])
    assert rows_of(standby) == {b"gone": b"1"}


async def test_a_standby_that_lacks_lost_records_is_rebuilt(broker, standby):
    store = standby._stores.open(LEVELS.name, 0)
    store.apply({b"gone": b"1"}, 0)
    broker.write(LEVELS, 0, *[(key, b"1") for key in SIX])
    broker.starts[TopicPartition(LEVELS.changelog, 0)] = 3
    standby.follow({0})
    await until(lambda: standby.lag == {0: 0})

    assert rows_of(standby) == dict.fromkeys(SIX[3:], b"1")


async def test_a_standby_continues_at_the_offset_of_its_store(broker, standby):
    broker.write(LEVELS, 0, *[(key, b"1") for key in SIX])
    standby._stores.open(LEVELS.name, 0).apply({b"mine": b"1"}, 3)
    standby.follow({0})
    await until(lambda: standby.lag == {0: 0})

    assert rows_of(standby) == {b"mine": b"1", b"e": b"1", b"f": b"1"}
    assert standby._stores.open(LEVELS.name, 0).offset == 5


async def test_the_offset_of_a_standby_is_past_transaction_markers(broker, standby):
    broker.write(LEVELS, 0, (b"a", b"1"), None, None)
    standby.follow({0})
    await until(lambda: standby._stores.open(LEVELS.name, 0).offset == 2)


async def test_a_store_is_not_written_once_its_partition_is_not_followed(broker, standby):
    standby.follow({0, 1})
    await until(lambda: standby.lag == {0: 0, 1: 0})
    for table in (LEVELS, SEEN):
        for partition in (0, 1):
            broker.write(table, partition, *[(key, b"1") for key in SIX])
    standby.follow({1})
    stores = [standby._stores.open(table.name, 0) for table in (LEVELS, SEEN)]

    for store in stores:
        store.apply = store.clear = store.mark_complete = pytest.fail
    await until(lambda: standby.lag == {1: 0} and len(rows_of(standby, LEVELS, 1)) == 6)
    assert [store.rows for store in stores] == [{}, {}]


async def test_rows_that_arrive_after_the_end_of_following_are_not_applied(broker, standby, monkeypatch):
    rows, arrived = Reading.rows, asyncio.Event()

    async def unstoppable(self):
        """A client that has its answer when it is cancelled."""
        try:
            arrived.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            monkeypatch.setattr(Reading, "rows", rows)
        return await rows(self)

    monkeypatch.setattr(Reading, "rows", unstoppable)
    broker.write(LEVELS, 0, (b"a", b"1"))
    standby.follow({0})
    await arrived.wait()
    store = standby._stores.open(LEVELS.name, 0)
    standby.follow({1})
    await until(lambda: standby.lag == {1: 0})
    assert store.rows == {}


async def test_of_changes_back_to_back_the_last_one_counts(broker, standby):
    for partition in range(4):
        broker.write(LEVELS, partition, (b"a", b"1"))
    for partitions in ({0}, {0, 1}, (), {2}, {2, 3}):
        standby.follow(partitions)
        await asyncio.sleep(0)
    await until(lambda: standby.lag == {2: 0, 3: 0})

    assert standby.partitions == {2, 3}
    assert rows_of(standby, LEVELS, 3) == {b"a": b"1"}


async def test_the_age_of_a_revoked_store_counts_from_the_last_confirmation(broker, standby):
    now = asyncio.get_running_loop().time()
    standby._confirmed = lambda: now - 200
    standby.mark_complete({0})

    assert 200 <= standby.age(LEVELS.name, 0) < 300
    assert standby.age(LEVELS.name, 1) is None


async def test_services_without_tables_follow_nothing(broker):
    plain = Service("plain", (Input(WAREHOUSE_INVENTORY, lambda *_: None),), ())
    confirmed = asyncio.get_running_loop().time
    standby = StandbyReplicas(Topology((plain,)), MemoryStores(), broker, LoopMetrics(CollectorRegistry()), confirmed)
    standby.follow({0, 1})
    await asyncio.sleep(0.02)

    assert (standby.partitions, broker.requests, broker.most_readers) == (frozenset(), 0, 0)
    await standby.stop()


async def test_without_followed_partitions_there_are_no_requests(broker, standby):
    standby.follow({0})
    await until(lambda: standby.lag == {0: 0})
    standby.follow(())
    await until(lambda: broker.readers == 0)
    requests = broker.requests
    await asyncio.sleep(0.05)
    assert (broker.requests, broker.readers) == (requests, 0)


async def test_a_stale_standby_is_rebuilt(broker, standby, monkeypatch):
    store = standby._stores.open(LEVELS.name, 0)
    store.apply({b"deleted-long-ago": b"1"}, 0)
    broker.write(LEVELS, 0, *[(key, b"1") for key in SIX])
    monkeypatch.setattr(MemoryStore, "stale", property(lambda store: b"deleted-long-ago" in store.rows))
    standby.follow({0})
    await until(lambda: standby.lag == {0: 0})

    assert rows_of(standby) == dict.fromkeys(SIX, b"1")


async def test_a_store_that_was_owned_until_now_is_complete(broker, standby):
    completed = []
    store = standby._stores.open(LEVELS.name, 0)
    store.apply({b"a": b"1"}, 7)
    store.mark_complete = completed.append
    standby.mark_complete({0, 1})
    assert completed == [7]

    now = asyncio.get_running_loop().time()
    standby._confirmed = lambda: now - 3600  # paused for an hour
    standby.mark_complete({0, 1})
    assert completed == [7]
