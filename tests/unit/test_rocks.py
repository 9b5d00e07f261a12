import time

import pytest

from runtime.errors import StoreError
from runtime.state.rocks import STALE_AFTER_S, RocksStore, RocksStores


@pytest.fixture
def stores(tmp_path):
    stores = RocksStores(tmp_path, memory_mb=1)
    yield stores
    stores.close()


def rows(store):
    return dict(store.items())


def test_rows_and_offset_survive_closing(stores):
    stores.open("t", 0).apply({b"a": b"1", b"b": b"2"}, 5)
    stores.open("t", 0).apply({b"a": None}, 6)
    stores.close()

    assert rows(stores.open("t", 0)) == {b"b": b"2"}
    assert stores.open("t", 0).offset == 6


def test_a_key_called_like_the_offset_is_a_key_like_any_other(stores):
    stores.open("t", 0).apply({b"offset": b"1"}, 5)

    assert rows(stores.open("t", 0)) == {b"offset": b"1"}
    assert stores.open("t", 0).offset == 5


def test_partitions_and_tables_are_apart(stores):
    stores.open("t", 0).apply({b"a": b"1"}, 0)

    assert rows(stores.open("t", 1)) == rows(stores.open("u", 0)) == {}


def test_clearing_forgets_rows_and_offset(stores):
    store = stores.open("t", 0)
    store.apply({b"a": b"1"}, 0)
    store.clear()

    assert (rows(store), store.offset) == ({}, None)


def test_stores_of_partitions_that_went_are_closed_and_can_be_opened_elsewhere(stores, tmp_path):
    stores.open("t", 0).apply({b"a": b"1"}, 0)
    stores.keep(frozenset({1}))

    other = RocksStore(tmp_path / "t" / "0", memory_mb=1)
    assert rows(other) == {b"a": b"1"}
    other.close()


def test_a_store_that_slept_longer_than_tombstones_are_kept_is_rebuilt(stores, monkeypatch):
    stores.open("t", 0).apply({b"a": b"1"}, 5)
    stores.close()
    later = time.time() + STALE_AFTER_S + 1
    monkeypatch.setattr("runtime.state.rocks.time.time", lambda: later)

    assert stores.open("t", 0).offset is None
    assert not stores.open("t", 0).stale


def test_a_store_that_was_cut_off_while_open_says_that_it_is_stale(stores, monkeypatch):
    store = stores.open("t", 0)
    assert not store.stale
    store.apply({b"a": b"1"}, 5)
    assert not store.stale
    later = time.time() + STALE_AFTER_S + 1
    monkeypatch.setattr("runtime.state.rocks.time.time", lambda: later)

    assert store.stale


def test_a_store_that_is_kept_complete_is_not_stale_though_nothing_changes_in_it(stores, monkeypatch):
    stores.open("t", 0).apply({b"a": b"1"}, 5)
    now = time.time()
    for hours in range(1, 30):
        monkeypatch.setattr("runtime.state.rocks.time.time", lambda hours=hours: now + 3600 * hours)
        stores.open("t", 0).mark_complete(5)
    stores.close()

    assert (rows(stores.open("t", 0)), stores.open("t", 0).offset) == ({b"a": b"1"}, 5)


def test_what_is_complete_anyway_is_not_written_again_and_again(stores, monkeypatch):
    store = stores.open("t", 0)
    store.apply({}, 5)
    monkeypatch.setattr(store, "apply", pytest.fail)
    for _ in range(3):
        store.mark_complete(5)


def test_what_is_open_or_on_disk_is_known(stores):
    assert (stores.peek("t", 0), stores.on_disk()) == (None, set())
    store = stores.open("t", 3)
    assert stores.peek("t", 3) is store
    stores.close()
    assert (stores.peek("t", 3), stores.on_disk()) == (None, {3})


def test_a_damaged_store_is_rebuilt(stores, tmp_path):
    stores.open("t", 0).apply({b"a": b"1"}, 5)
    stores.close()
    (tmp_path / "t" / "0" / "CURRENT").write_text("nonsense\n")

    assert (rows(stores.open("t", 0)), stores.open("t", 0).offset) == ({}, None)


def test_a_store_that_is_open_elsewhere_is_refused_by_its_path(stores, tmp_path):
    stores.open("t", 0)

    with pytest.raises(StoreError, match="t/0"):
        RocksStore(tmp_path / "t" / "0", memory_mb=1)
