"""Lost records are reported once per range, counted, and persisted, or end the worker."""

import logging

import pytest
from prometheus_client import CollectorRegistry

from runtime.data_loss.losses import LossCause, LossPath, LossReporter, RecordsLost
from runtime.metrics.loop import LoopMetrics
from runtime.model.dead_letters import LOST_UNTIL
from runtime.model.records import TopicPartition


@pytest.fixture
def registry():
    return CollectorRegistry()


def reporter(registry, **options):
    return LossReporter(LoopMetrics(registry), **options)


def counted(registry, topic="payments"):
    return registry.get_sample_value("faust_orders_lost_records_total", {"topic": topic})


def test_a_range_is_logged_and_counted_once(registry, caplog):
    lost = reporter(registry)
    for _ in range(3):
        lost.report("payments", 2, 5, 12, LossPath.INPUT, LossCause.REMOVED)
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert (
        "records lost topic=payments partition=2 first=5 last=11 count=7 path=input cause=removed remedy="
        in record.getMessage()
    )
    assert counted(registry) == 7


def test_a_range_that_grew_counts_its_new_offsets_only(registry, caplog):
    lost = reporter(registry)
    lost.report("payments", 2, 5, 12, LossPath.INPUT, LossCause.REMOVED)
    lost.report("payments", 2, 5, 20, LossPath.INPUT, LossCause.REMOVED)
    assert counted(registry) == 15
    assert "last=19 count=15" in caplog.records[-1].getMessage()


def test_the_next_range_and_other_partitions_are_reported_separately(registry, caplog):
    lost = reporter(registry)
    lost.report("payments", 2, 5, 12, LossPath.INPUT, LossCause.REMOVED)
    lost.report("payments", 2, 30, 40, LossPath.INPUT, LossCause.REMOVED)
    lost.report("payments", 3, 5, 12, LossPath.INPUT, LossCause.REMOVED)
    lost.report("orders", 2, 5, 12, LossPath.INPUT, LossCause.REMOVED)
    assert len(caplog.records) == 4
    assert counted(registry) == 24
    assert counted(registry, "orders") == 7


@pytest.mark.parametrize("cause", list(LossCause))
def test_each_cause_names_a_remedy(registry, cause):
    failures = []
    lost = reporter(registry, stop=True, failed=failures.append)
    with pytest.raises(RecordsLost) as raised:
        lost.report("payments", 2, 5, 12, LossPath.CHANGELOG, cause)
    assert failures == [raised.value]
    for said in ("topic payments", "partition 2", "offsets 5 to 11", "Remedy: ", "ON_LOST_RECORDS=continue"):
        assert said in str(raised.value)


class Keeper:
    """Makes losses durable, or not."""

    def __init__(self):
        self.kept = []
        self.away = False

    async def __call__(self, loss):
        if self.away:
            raise OSError("the broker is away")
        self.kept.append(loss)


async def test_a_loss_that_stops_the_worker_is_raised_each_time_and_never_persisted(registry):
    keep = Keeper()
    lost = reporter(registry, stop=True, persist=keep)
    for _ in range(2):
        with pytest.raises(RecordsLost):
            lost.report("orders-view-changelog", 2, 5, 12, LossPath.STANDBY, LossCause.REMOVED)
        await lost.flush()
    assert keep.kept == []


async def test_the_loss_of_a_changelog_is_persisted_once_and_that_of_an_input_is_not(registry):
    keep = Keeper()
    lost = reporter(registry, persist=keep)
    for _ in range(2):
        lost.report("orders-view-changelog", 2, 5, 12, LossPath.CHANGELOG, LossCause.REMOVED)
        lost.report("payments", 2, 5, 12, LossPath.INPUT, LossCause.REMOVED)
        await lost.flush()
    [loss] = keep.kept
    assert (loss.topic, loss.first, loss.end, loss.count) == ("orders-view-changelog", 5, 12, 7)


async def test_a_loss_that_could_not_be_persisted_is_persisted_the_next_time(registry):
    keep = Keeper()
    lost = reporter(registry, persist=keep)
    keep.away = True
    lost.report("orders-view-changelog", 2, 5, 12, LossPath.CHANGELOG, LossCause.REMOVED)
    with pytest.raises(OSError, match="away"):
        await lost.flush()
    keep.away = False
    lost.report("orders-view-changelog", 2, 5, 12, LossPath.CHANGELOG, LossCause.REMOVED)
    await lost.flush()
    assert len(keep.kept) == 1


def test_the_owner_gets_the_loss_of_an_input_once_and_a_reset_forgets_it(registry):
    lost = reporter(registry)
    tp = TopicPartition("payments", 2)
    lost.report(*tp, 5, 12, LossPath.INPUT, LossCause.REMOVED)
    [loss] = lost.pop({tp})
    assert (loss.first, loss.end) == (5, 12)
    assert lost.pop({tp}) == []

    lost.report(*tp, 5, 12, LossPath.INPUT, LossCause.REMOVED)
    assert lost.pop(set()) == [], "it is another's by now"
    lost.report(*tp, 5, 12, LossPath.INPUT, LossCause.REMOVED)
    lost.reset()
    assert lost.pop({tp}) == []


def test_the_record_of_a_loss_has_the_end_of_its_range(registry):
    record = reporter(registry).report("payments", 2, 5, 12, LossPath.INPUT, LossCause.REMOVED).record()
    assert record[:3] == ("payments", 2, 5)
    assert record.headers == ((LOST_UNTIL, b"12"),)
    assert record.unreadable == "records 5 to 11 were removed (retention or DeleteRecords) before they were read"
