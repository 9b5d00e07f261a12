"""How far a sink is behind, in records and in seconds, while its database is there and while it is away."""

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from runtime.metrics.sink import SinkMetrics
from runtime.model.records import TopicPartition
from runtime.sink.lag import SinkLag
from runtime.sink.placement import SinkPosition
from runtime.sink.ports import Fetched, Polled
from tests.sinks import Logs, MemoryDatabase, Worker

TP, OTHER = TopicPartition("orders", 0), TopicPartition("orders", 1)
START = 1_795_000_000.0


class Lag:
    """A lag with a clock in seconds from the start, shown as Prometheus has it."""

    def __init__(self):
        self.now = 0.0
        self.of = SinkLag("history", lambda: datetime.fromtimestamp(START + self.now, UTC))

    def poll(self, offset, written, end):
        record = Fetched(offset, int((START + written) * 1000) if written is not None else -1, None, b"")
        self.of.poll(Polled({TP: [record]}, {TP: offset + 1}, {TP: end}))

    def store(self, offset, tp=TP):
        self.of.store({tp: SinkPosition(1, offset)})

    def at(self, seconds):
        self.now = seconds
        [(service, topic, records, age)] = self.of.by_topic()
        assert (service, topic) == ("history", "orders")
        return records, round(age, 6)


def placed(end=0, stored=0):
    lag = Lag()
    lag.of.assign({TP: end})
    lag.store(stored)
    return lag


def test_a_record_ages_from_when_it_was_written_until_it_is_stored():
    lag = placed()
    lag.now = 10.0
    lag.poll(0, 4.0, end=5)
    assert lag.at(10.0) == (5, 6.0)
    lag.poll(3, 9.0, end=6)  # the next batch, while the first one is being stored
    assert lag.at(12.0) == (6, 8.0)
    lag.store(3)
    assert lag.at(12.0) == (3, 3.0), "the second batch is the oldest now"
    lag.store(6)
    assert lag.at(99.0) == (0, 0.0)


def test_records_that_are_not_polled_age_from_when_they_were_seen():
    lag = placed()
    lag.now = 10.0
    lag.of.assign({TP: 7})  # again and again while the database is away
    lag.now = 20.0
    lag.of.assign({TP: 9})
    assert lag.at(30.0) == (9, 20.0)


def test_a_batch_that_is_read_again_keeps_its_age():
    lag = placed()
    lag.poll(0, -5.0, end=2)
    lag.of.assign({TP: 4})
    lag.store(0)
    lag.poll(0, -5.0, end=4)
    assert lag.at(1.0) == (4, 6.0)


def test_a_position_that_the_database_has_not_told_ages_without_records():
    lag = Lag()
    lag.of.assign({TP: 1000})
    assert lag.at(60.0) == (0, 60.0)
    lag.store(1000)
    assert lag.at(60.0) == (0, 0.0)


def test_partitions_of_a_topic_are_one_figure_and_revoked_ones_are_none():
    lag = Lag()
    lag.of.assign({TP: 4, OTHER: 6})
    lag.store(0)
    lag.now = 2.0
    lag.store(0, OTHER)
    assert lag.at(5.0) == (10, 5.0)
    lag.of.assign({OTHER: 6})
    assert lag.at(5.0) == (6, 3.0)
    lag.of.assign({})
    assert list(lag.of.by_topic()) == []


def test_a_record_without_a_timestamp_ages_from_when_it_was_polled_and_a_clock_ahead_gives_zero():
    lag = placed()
    lag.now = 3.0
    lag.poll(0, None, end=1)
    assert lag.at(5.0) == (1, 2.0)
    lag.store(1)
    lag.poll(1, 100.0, end=2)
    assert lag.at(6.0) == (1, 0.0)


def test_a_log_that_is_made_anew_forgets_the_old_one():
    lag = placed()
    lag.poll(0, -50.0, end=9)
    lag.poll(5, -40.0, end=9)
    lag.store(5)
    lag.of.assign({TP: 2})
    lag.store(0)
    assert lag.at(1.0) == (2, 1.0)


async def test_the_engine_tells_what_it_has_not_stored():
    registry = CollectorRegistry()
    metrics, logs, database = SinkMetrics(registry), Logs(), MemoryDatabase()
    worker = Worker(logs, database, 0, 1)
    metrics.watch(worker.engine._lag)

    def shown():
        labels = {"service": "history", "topic": "orders"}
        return registry.get_sample_value("faust_orders_sink_lag_records", labels)

    await worker.drain(3)
    assert shown() == 0
    logs.append(0, *[b"x"] * 8)
    await worker.step()
    assert shown() == 8, "polled, not stored"
    database.away = True
    await worker.drain(3)
    logs.append(1, b"y")
    await worker.drain(3)
    assert shown() == 9, "also what comes meanwhile"
    database.away = False
    await worker.drain()
    assert shown() == 0
