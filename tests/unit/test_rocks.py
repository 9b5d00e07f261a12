"""State stores on disk: rows and offset survive, stale and damaged stores are rebuilt."""

import time

import pytest
from rocksdict import Cache

from runtime.errors import StoreError
from runtime.state.rocks import MIB, STALE_AFTER_S, RocksStore, RocksStores


@pytest.fixture
def stores(tmp_path):
    stores = RocksStores(tmp_path, cache_mb=1, write_buffer_kb=256)
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


def test_a_key_named_offset_is_a_key_like_any_other(stores):
    stores.open("t", 0).apply({b"offset": b"1"}, 5)

    assert rows(stores.open("t", 0)) == {b"offset": b"1"}
    assert stores.open("t", 0).offset == 5


def test_tables_and_partitions_have_stores_of_their_own(stores):
    stores.open("t", 0).apply({b"a": b"1"}, 0)

    assert rows(stores.open("t", 1)) == rows(stores.open("u", 0)) == {}


def test_clearing_deletes_rows_and_offset(stores):
    store = stores.open("t", 0)
    store.apply({b"a": b"1"}, 0)
    store.clear()

    assert (rows(store), store.offset) == ({}, None)


def test_stores_of_revoked_partitions_are_closed_and_can_be_opened_elsewhere(stores, tmp_path):
    stores.open("t", 0).apply({b"a": b"1"}, 0)
    stores.keep(frozenset({1}))

    other = RocksStore(tmp_path / "t" / "0", Cache(MIB), 256)
    assert rows(other) == {b"a": b"1"}
    other.close()


def test_a_store_older_than_the_tombstones_of_its_changelog_is_rebuilt(stores, monkeypatch):
    stores.open("t", 0).apply({b"a": b"1"}, 5)
    stores.close()
    later = time.time() + STALE_AFTER_S + 1
    monkeypatch.setattr("runtime.state.rocks.time.time", lambda: later)

    assert stores.open("t", 0).offset is None
    assert not stores.open("t", 0).stale


def test_a_store_without_updates_becomes_stale_while_it_is_open(stores, monkeypatch):
    store = stores.open("t", 0)
    assert not store.stale
    store.apply({b"a": b"1"}, 5)
    assert not store.stale
    later = time.time() + STALE_AFTER_S + 1
    monkeypatch.setattr("runtime.state.rocks.time.time", lambda: later)

    assert store.stale


def test_a_store_marked_complete_is_not_stale_although_nothing_changes(stores, monkeypatch):
    stores.open("t", 0).apply({b"a": b"1"}, 5)
    now = time.time()
    for hours in range(1, 30):
        monkeypatch.setattr("runtime.state.rocks.time.time", lambda hours=hours: now + 3600 * hours)
        stores.open("t", 0).mark_complete(5)
    stores.close()

    assert (rows(stores.open("t", 0)), stores.open("t", 0).offset) == ({b"a": b"1"}, 5)


def test_a_store_that_is_marked_complete_already_is_not_written_again(stores, monkeypatch):
    store = stores.open("t", 0)
    store.apply({}, 5)
    monkeypatch.setattr(store, "apply", pytest.fail)
    for _ in range(3):
        store.mark_complete(5)


def test_open_stores_and_partitions_on_disk_are_listed(stores):
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


def test_a_store_that_is_open_elsewhere_raises_an_error_with_its_path(stores, tmp_path):
    stores.open("t", 0)

    with pytest.raises(StoreError, match="t/0"):
        RocksStore(tmp_path / "t" / "0", Cache(MIB), 256)


def test_keys_are_listed_in_order_from_a_key_on(tmp_path):
    store = RocksStore(tmp_path / "store", Cache(MIB), 1024)
    store.apply(dict.fromkeys([b"c", b"a", b"b"], b"x"), 0)
    assert list(store.keys(b"")) == [b"a", b"b", b"c"]
    assert list(store.keys(b"aa")) == [b"b", b"c"]
    store.close()
