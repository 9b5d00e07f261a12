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
def turn(batch):
    return lambda partition=0: ProcessorContext(batch, KEEPER, partition, NOON)


def test_a_read_sees_the_store_then_the_batch_then_the_turn(stores, turn):
    stores.open("keeper-seen", 0).apply({b"o1": order(quantity=1).to_json()}, 0)
    first, second = turn(), turn()
    assert first.get(TABLE, "o1").quantity == 1
    first.put(TABLE, "o1", order(quantity=2))
    assert (first.get(TABLE, "o1").quantity, second.get(TABLE, "o1").quantity) == (2, 1)
    first.keep()
    assert second.get(TABLE, "o1").quantity == 2
    second.delete(TABLE, "o1")
    assert second.get(TABLE, "o1") is None
    second.keep()
    assert turn().get(TABLE, "o1") is None


def test_partitions_do_not_see_each_other(turn):
    here = turn(0)
    here.put(TABLE, "o1", order())
    here.keep()
    assert turn(1).get(TABLE, "o1") is None


def test_a_turn_that_is_not_kept_changes_nothing(batch, turn):
    turn().put(TABLE, "o1", order())
    assert batch.rows() == {}


def test_a_row_that_changes_often_in_a_batch_is_written_once_as_it_ends(batch, turn):
    for quantity in (1, 2, 3):
        one = turn()
        one.put(TABLE, "o1", order(quantity=quantity))
        one.keep()
    rows = batch.rows()
    assert rows == {("keeper-seen", 0): {b"o1": order(quantity=3).to_json()}}
    [write] = batch.writes(rows).changelog
    assert (write.topic, write.partition, write.key) == ("keeper-seen-changelog", 0, b"o1")


def test_a_row_made_and_deleted_in_one_batch_never_was(batch, turn):
    one = turn()
    one.put(TABLE, "o1", order())
    one.schedule("o1", NOON)
    one.keep()
    two = turn()
    two.delete(TABLE, "o1")
    two.schedule("o1", None)
    two.keep()
    assert batch.rows() == {}


def test_a_stored_row_that_is_deleted_leaves_a_tombstone(stores, batch, turn):
    stores.open("keeper-seen", 0).apply({b"o1": order().to_json()}, 0)
    one = turn()
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
