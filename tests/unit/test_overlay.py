import pytest

from runtime.loop.overlay import BatchOverlay, ProcessorContext
from runtime.model.service import ScheduledTimer, Service, Table, Timer
from runtime.model.topology import Topology
from runtime.state.stores import MemoryStores
from runtime.state.ttl_table import ExpiringRow, TtlTable
from schemas.messages import Order
from tests.samples import NOON, order

TABLE = Table("keeper-seen", Order)
DUE = Timer("due", lambda key, ctx: None)
LATER, BARE = Timer("later", print), Timer("bare", print, prefix="")
KEEPER = Service("keeper", (), (), (TABLE,), timers=(DUE, LATER, BARE))


@pytest.fixture
def stores():
    return MemoryStores()


@pytest.fixture
def batch(stores):
    return BatchOverlay(Topology((KEEPER,)), 4, NOON, stores.open)


@pytest.fixture
def context(batch):
    return lambda partition=0: ProcessorContext(batch, KEEPER, partition, NOON)


def test_a_read_sees_the_processor_before_the_batch_before_the_store(stores, context):
    stores.open("keeper-seen", 0).apply({b"o1": order(quantity=1).to_json()}, 0)
    first, second = context(), context()
    assert first.get(TABLE, "o1").quantity == 1
    first.put(TABLE, "o1", order(quantity=2))
    assert (first.get(TABLE, "o1").quantity, second.get(TABLE, "o1").quantity) == (2, 1)
    first.keep()
    assert second.get(TABLE, "o1").quantity == 2
    second.delete(TABLE, "o1")
    assert second.get(TABLE, "o1") is None
    second.keep()
    assert context().get(TABLE, "o1") is None


def test_partitions_do_not_see_each_other(context):
    here = context(0)
    here.put(TABLE, "o1", order())
    here.keep()
    assert context(1).get(TABLE, "o1") is None


def test_a_context_that_is_not_kept_changes_nothing(batch, context):
    context().put(TABLE, "o1", order())
    assert batch.rows() == {}


def test_a_row_that_changes_often_in_a_batch_is_written_once(batch, context):
    for quantity in (1, 2, 3):
        one = context()
        one.put(TABLE, "o1", order(quantity=quantity))
        one.keep()
    rows = batch.rows()
    assert rows == {("keeper-seen", 0): {b"o1": order(quantity=3).to_json()}}
    [write] = batch.writes(rows).changelog
    assert (write.topic, write.partition, write.key) == ("keeper-seen-changelog", 0, b"o1")


def test_a_row_created_and_deleted_in_one_batch_is_not_written(batch, context):
    one = context()
    one.put(TABLE, "o1", order())
    one.schedule(DUE, "o1", NOON)
    one.keep()
    two = context()
    two.delete(TABLE, "o1")
    two.schedule(DUE, "o1", None)
    two.keep()
    assert batch.rows() == {}


def test_a_stored_row_that_is_deleted_leaves_a_tombstone(stores, batch, context):
    stores.open("keeper-seen", 0).apply({b"o1": order().to_json()}, 0)
    one = context()
    one.delete(TABLE, "o1")
    one.keep()
    assert batch.rows() == {("keeper-seen", 0): {b"o1": None}}


def test_a_table_is_named_after_its_service():
    with pytest.raises(ValueError, match="must be named 'keeper-"):
        Service("keeper", (), (), (Table("seen", Order),))


def test_a_worker_runs_each_service_once_and_at_least_one():
    with pytest.raises(ValueError, match="each service once"):
        Topology((KEEPER, KEEPER))
    with pytest.raises(ValueError, match="at least one"):
        Topology(())


def test_the_keys_of_a_kind_of_timer_are_listed_in_order_from_store_batch_and_processor(stores, batch, context):
    rows = {DUE.row_key(key): NOON for key in ("a", "c", "e")} | {LATER.row_key("b"): NOON, "order": NOON}
    stored = {key.encode(): ScheduledTimer(at=at).to_json() for key, at in rows.items()}
    stores.open("keeper-timers", 0).apply(stored, 0)
    before = context()
    before.schedule(DUE, "b", NOON)
    before.schedule(DUE, "c", None)
    before.keep()
    one = context()
    one.schedule(DUE, "d", NOON)
    one.schedule(DUE, "e", None)
    assert one.scheduled(DUE) == ["a", "b", "d"]
    assert one.scheduled(DUE, after="a") == ["b", "d"]
    assert one.scheduled(DUE, after="a", limit=1) == ["b"]
    assert one.scheduled(LATER) == ["b"]
    assert one.scheduled(BARE) == ["order"]
    assert context(1).scheduled(DUE) == []


def test_a_timer_that_its_service_does_not_list_cannot_be_set(context):
    with pytest.raises(ValueError, match="must list timer 'other' among its timers"):
        context().schedule(Timer("other", print), "o1", NOON)


@pytest.mark.parametrize(
    ("timers", "error"),
    [
        ((DUE, Timer("due", print, prefix="x/")), "two timers with the name 'due'"),
        ((BARE, Timer("bare too", print, prefix="")), "two timers with the prefix ''"),
    ],
)
def test_two_kinds_of_timers_that_could_be_confused_are_refused(timers, error):
    with pytest.raises(ValueError, match=error):
        Service("keeper", (), (), timers=timers)


def test_a_ttl_table_that_is_not_declared_is_refused():
    with pytest.raises(ValueError, match="expires: declare it in ttl_tables"):
        Service("keeper", (), (), tables=TtlTable("keeper-seen", ExpiringRow).tables)
