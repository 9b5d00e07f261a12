from datetime import timedelta

import pytest

from runtime.model.service import Input, Service
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

    def on_timer(hour, ctx):
        assert len(SEEN.expire(hour, ctx)) <= MAX_EXPIRED

    return TopologyTestDriver(Service("keeper", (Input(ORDERS, see),), (), SEEN.tables, on_timer), partitions=1)


def rows(topology):
    stores = topology.workers[0].stores
    return {table: len(store.rows) for (table, _), store in stores.stores.items()}


def test_a_row_is_kept_as_long_as_promised_and_gone_an_hour_later(topology):
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


def test_many_rows_are_forgotten_a_step_at_a_time_and_nothing_stays(topology):
    topology.send(ORDERS, *[order(f"o{n}") for n in range(3 * MAX_EXPIRED + 1)])
    topology.advance(TTL + timedelta(hours=1))
    assert set(rows(topology).values()) == {0}


def test_what_was_forgotten_can_be_remembered_again(topology):
    topology.send(ORDERS, order("o1"))
    topology.advance(TTL + timedelta(hours=1))
    topology.send(ORDERS, order("o1", created_at=NOON))
    assert topology.row(SEEN.rows, "o1") == ExpiringRow()


def test_what_was_seen_is_told_as_long_as_a_topic_keeps_it():
    seen, first = Deduplication("keeper-events"), []
    on_order = lambda order, ctx: first.append((order.id, seen.is_new(ctx, order.id)))  # noqa: E731
    topology = TopologyTestDriver(
        Service("keeper", (Input(ORDERS, on_order),), (), seen.tables, seen.expire), partitions=1
    )
    topology.send(ORDERS, order("o1"), order("o2"), order("o1"))
    topology.advance(TTL - timedelta(seconds=1))
    topology.send(ORDERS, order("o1"))
    assert first == [("o1", True), ("o2", True), ("o1", False), ("o1", False)]

    topology.advance(timedelta(hours=2))
    assert set(rows(topology).values()) == {0}
