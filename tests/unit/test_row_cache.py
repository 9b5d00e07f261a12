"""The cache of decoded rows: bounded, and never other than the stores."""

import pytest

from runtime.loop.overlay import BatchOverlay, ProcessorContext
from runtime.loop.ownership import Ownership
from runtime.model.records import Membership, TopicPartition
from runtime.model.service import Service, Table
from runtime.model.topology import Topology
from runtime.state.row_cache import RowCache
from runtime.state.stores import MemoryStores
from schemas.messages import StockLevel
from tests.samples import NOON

LEVELS = Table("keeper-levels", StockLevel)
SEEN = Table("keeper-seen", StockLevel, expiring=True)
KEEPER = Service("keeper", (), (), (LEVELS,))
TP = TopicPartition("orders", 0)


def level(count):
    return StockLevel(product="mug", count=count)


def cached_counts(cache, *keys, table=LEVELS):
    return [row and row.count for row in (cache.get(table, 0, key) for key in keys)]


def test_a_changed_row_is_cached_as_it_is_now():
    cache = RowCache()
    cache.add(LEVELS, 0, "mug", level(1))
    cache.changed(LEVELS, 0, {"mug": level(2), "cup": level(3)})
    cache.changed(LEVELS, 1, {"mug": level(4)})
    assert cached_counts(cache, "mug", "cup") == [2, 3]
    cache.changed(LEVELS, 0, {"mug": None})
    assert cached_counts(cache, "mug", "cup") == [None, 3]


@pytest.mark.parametrize("others", [0, 1, 2, 3])
def test_a_deleted_row_of_either_generation_is_forgotten(others):
    cache = RowCache(generation=2)
    cache.changed(LEVELS, 0, {"mug": level(1)})
    cache.changed(LEVELS, 0, {f"cup {n}": level(n) for n in range(others)})
    cache.changed(LEVELS, 0, {"mug": None})
    assert cached_counts(cache, "mug") == [None]


def test_the_cache_is_bounded_and_keeps_rows_in_use():
    cache = RowCache(generation=10)
    cache.changed(LEVELS, 0, {"mug": level(1)})
    for n in range(1000):
        cache.changed(LEVELS, 0, {f"order {n}": level(n)})
        assert cached_counts(cache, "mug") == [1]
    kept = [n for n in range(1000) if cached_counts(cache, f"order {n}") != [None]]
    assert 9 <= len(kept) <= 20
    assert kept[-1] == 999


def test_rows_that_expire_are_not_kept():
    cache = RowCache()
    cache.add(SEEN, 0, "mug", level(1))
    cache.changed(SEEN, 0, {"cup": level(1)})
    assert cached_counts(cache, "mug", "cup", table=SEEN) == [None, None]


def test_a_batch_reads_through_the_cache():
    stores, cache = MemoryStores(), RowCache()
    stores.open(LEVELS.name, 0).apply({b"mug": level(1).to_json()}, 0)

    def count():
        batch = BatchOverlay(Topology((KEEPER,)), 1, NOON, stores.open, cached=cache)
        row = ProcessorContext(batch, KEEPER, 0, NOON).get(LEVELS, "mug")
        return row.count if row else None

    assert count() == 1
    stores.open(LEVELS.name, 0).clear()
    assert count() == 1  # from the cache
    cache.clear()
    assert count() is None


@pytest.mark.parametrize("change", ["lost", "restored"])
def test_nothing_is_cached_over_a_rebalance(change):
    ownership = Ownership()
    ownership.acquire(Membership(1, "me"), {TP: 0}, {}, {})
    ownership.cached.changed(LEVELS, 0, {"mug": level(1)})
    if change == "lost":
        ownership.lose()
    else:
        ownership.acquire(Membership(2, "me"), {TP: 0}, {}, {})
    assert cached_counts(ownership.cached, "mug") == [None]
