import pytest

from runtime.loop.overlay import BatchOverlay, ProcessorContext
from runtime.model.service import Service, Table
from runtime.model.topology import Topology
from runtime.state.stores import MemoryStores
from schemas.messages import Order
from tests.samples import NOON, order

TABLE = Table("keeper-seen", Order)
KEEPER = Service("keeper", (), (), (TABLE,), on_timer=lambda key, ctx: None)


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
    one.schedule("o1", NOON)
    one.keep()
    two = context()
    two.delete(TABLE, "o1")
    two.schedule("o1", None)
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
