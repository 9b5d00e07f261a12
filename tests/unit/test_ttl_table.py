"""Rows of TTL tables expire in steps, at the cost of one timer an hour."""

from datetime import timedelta

import pytest

from runtime.model.service import Expiring, Input, Service
from runtime.state.ttl_table import MAX_EXPIRED, TTL, Deduplication, ExpiringRow, TtlTable
from runtime.testing import TopologyTestDriver
from schemas.topics import ORDERS
from tests.samples import NOON, order

SEEN = TtlTable("keeper-seen", ExpiringRow)


@pytest.fixture
def topology():
    def see(seen, ctx):
        if SEEN.get(ctx, seen.id) is None:
            SEEN.add(ctx, seen.id, ExpiringRow())

    service = Service("keeper", (Input(ORDERS, see),), (), ttl_tables=(Expiring(SEEN),))
    return TopologyTestDriver(service, partitions=1)


def rows(topology):
    stores = topology.workers[0].stores
    return {table: len(store.rows) for (table, _), store in stores.stores.items()}


def test_a_row_lives_for_its_ttl_and_is_deleted_within_an_hour_after_it(topology):
    topology.send(ORDERS, order("o1"))
    topology.advance(timedelta(minutes=59))
    topology.send(ORDERS, order("o2"))
    topology.advance(TTL - timedelta(seconds=1))
    assert topology.row(SEEN.rows, "o2") is not None
    topology.advance(timedelta(hours=1))
    assert topology.row(SEEN.rows, "o1") is None
    assert topology.row(SEEN.rows, "o2") is None


def test_an_hour_of_rows_costs_one_timer(topology):
    topology.send(ORDERS, *[order(f"o{n}") for n in range(100)])
    assert rows(topology) == {"keeper-seen": 100, "keeper-seen-hours": 1, "keeper-timers": 1}


def test_many_rows_expire_in_steps_and_none_is_left(topology):
    topology.send(ORDERS, *[order(f"o{n}") for n in range(3 * MAX_EXPIRED + 1)])
    topology.advance(TTL + timedelta(hours=1))
    assert set(rows(topology).values()) == {0}


def test_an_expired_row_can_be_added_again(topology):
    topology.send(ORDERS, order("o1"))
    topology.advance(TTL + timedelta(hours=1))
    topology.send(ORDERS, order("o1", created_at=NOON))
    assert topology.row(SEEN.rows, "o1") == ExpiringRow()


def test_deduplication_knows_an_id_for_its_ttl():
    seen, first = Deduplication("keeper-events"), []
    on_order = lambda order, ctx: first.append((order.id, seen.is_new(ctx, order.id)))  # noqa: E731
    service = Service("keeper", (Input(ORDERS, on_order),), (), ttl_tables=(Expiring(seen),))
    topology = TopologyTestDriver(service, partitions=1)
    topology.send(ORDERS, order("o1"), order("o2"), order("o1"))
    topology.advance(TTL - timedelta(seconds=1))
    topology.send(ORDERS, order("o1"))
    assert first == [("o1", True), ("o2", True), ("o1", False), ("o1", False)]

    topology.advance(timedelta(hours=2))
    assert set(rows(topology).values()) == {0}
