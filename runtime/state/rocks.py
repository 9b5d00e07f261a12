"""State stores on disk: one RocksDB per table and partition, dozens of them on a laptop, with one cache."""

import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from rocksdict import (
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    Options,
    Rdict,
    WriteBatch,
)

from runtime.errors import StoreError
from runtime.metrics.worker import TableSize
from runtime.state.stores import Rows

log = logging.getLogger(__name__)

KIB = 1024
MIB = 1024 * KIB

STALE_AFTER_S = 12 * 3600
"""Seconds after which a store is rebuilt instead of brought up to date: a changelog keeps tombstones for a day
(`delete.retention.ms`), and a store that missed one would keep the deleted row."""

FRESH_FOR_S = 600
"""Seconds between two marks that an unchanged store is complete: each is a write."""

_META = "meta"
_OFFSET = b"offset"  # value: "<offset> <unix seconds>"
_LOG_ID = b"log-id"

_SIZES = ("estimate-num-keys", "total-sst-files-size", "cur-size-all-mem-tables")
"""Properties of RocksDB: rows, then bytes."""


def options(cache: Cache, write_buffer_kb: int) -> Options:
    """Options of one store, whose blocks are kept in `cache`, and whose write buffers have so many KiB.

    A store fills a write buffer while it writes another. Index and filters of a table are blocks of 4 KiB, each in the
    cache on its own (RocksDB: "Partitioned Index Filters"): what a lookup reads does not grow with the rows of a store.
    """
    block = BlockBasedOptions()
    block.set_block_cache(cache)
    block.set_cache_index_and_filter_blocks(True)
    block.set_index_type(BlockBasedIndexType.two_level_index_search())
    block.set_partition_filters(True)
    block.set_metadata_block_size(4096)
    block.set_pin_top_level_index_and_filter(True)
    block.set_bloom_filter(10, False)
    result = Options(raw_mode=True)
    result.create_if_missing(True)
    result.create_missing_column_families(True)
    result.set_block_based_table_factory(block)
    result.set_write_buffer_size(write_buffer_kb * KIB)
    result.set_max_write_buffer_number(2)
    result.set_max_total_wal_size(8 * write_buffer_kb * KIB)
    result.set_max_background_jobs(2)
    result.set_keep_log_file_num(2)
    result.set_max_open_files(64)
    result.set_stats_dump_period_sec(0)
    return result


class RocksStore:
    """The rows of one table in one partition. Raises `StoreError` if it cannot be opened."""

    def __init__(self, path: Path, cache: Cache, write_buffer_kb: int) -> None:
        self._path = path
        self._options = options(cache, write_buffer_kb)
        self._open()

    def _open(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        self._db = self._open_database()
        self._meta = self._db.get_column_family(_META)
        self._meta_handle = self._db.get_column_family_handle(_META)
        self._closed = False
        self._offset, self._written = self._read_offset()
        log_id = self._meta.get(_LOG_ID)
        self._log_id = None if log_id is None else log_id.decode()
        if self.stale:
            self.clear()

    def _open_database(self) -> Rdict:
        own = self._options
        try:
            return Rdict(str(self._path), own, column_families={_META: own})
        except Exception as error:  # rocksdict has one exception for everything
            if not str(error).startswith("Corruption"):
                raise StoreError(
                    f"{self._path}: {error}. Free the disk and check access, or delete the folder: "
                    "the store is restored from its changelog"
                ) from error
        log.warning("store is damaged, rebuilding path=%s", self._path)
        shutil.rmtree(self._path)
        self._path.mkdir()
        return Rdict(str(self._path), own, column_families={_META: own})

    def _read_offset(self) -> tuple[int | None, float]:
        raw = self._meta.get(_OFFSET)
        if raw is None:
            return None, 0
        offset, written = raw.split()
        return int(offset), float(written)

    @property
    def offset(self) -> int | None:
        """Offset of the last changelog record applied; `None` for an empty store."""
        return self._offset

    @property
    def log_id(self) -> str | None:
        """Id of the changelog of these rows; `None` if it was never stored, or the store was cleared since."""
        return self._log_id

    def set_log_id(self, log_id: str) -> None:
        """Stores the id of the changelog."""
        if log_id != self._log_id:
            batch = WriteBatch(raw_mode=True)
            batch.put(_LOG_ID, log_id.encode(), self._meta_handle)
            self._db.write(batch)
            self._log_id = log_id

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._db.get(key)
        return value

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        yield from self._db.items()

    def keys(self, first: bytes) -> Iterator[bytes]:
        """The keys from `first` on, in order."""
        yield from self._db.keys(from_key=first)

    def size(self) -> TableSize:
        """Rows, as RocksDB estimates them, and bytes on disk and in write buffers."""
        rows, *sizes = (self._db.property_int_value(f"rocksdb.{name}") or 0 for name in _SIZES)
        return TableSize(rows, sum(sizes))

    def apply(self, rows: Rows, offset: int) -> None:
        """Writes rows and offset in one write batch."""
        batch = WriteBatch(raw_mode=True)
        for key, value in rows.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        now = time.time()
        batch.put(_OFFSET, b"%d %d" % (offset, now), self._meta_handle)
        self._db.write(batch)
        self._offset, self._written = offset, now

    @property
    def stale(self) -> bool:
        """Whether it was last complete so long ago that its changelog may have dropped tombstones since."""
        return self._offset is not None and time.time() - self._written > STALE_AFTER_S

    def mark_complete(self, offset: int) -> None:
        """Marks the store as complete now: it includes its changelog up to `offset`, the last one."""
        if offset != self._offset or time.time() - self._written > FRESH_FOR_S:
            self.apply({}, offset)

    def clear(self) -> None:
        """Deletes all rows and the offset."""
        self._close_database()
        shutil.rmtree(self._path)
        self._open()

    def close(self) -> None:
        """Flushes and closes. Closing twice does nothing."""
        self._close_database()

    def _close_database(self) -> None:
        if self._closed:
            return
        self._closed = True
        del self._meta_handle  # RocksDB holds its lock while anything refers to it
        self._meta.close()
        self._db.close()


class RocksStores:
    """The stores of one worker, below one folder: `<folder>/<table>/<partition>`.

    Arguments:
        folder: of all stores.
        cache_mb: MiB of the block cache, which they share: a worker has one limit, whatever it owns.
        write_buffer_kb: KiB of a write buffer of a store.
    """

    def __init__(self, folder: Path, cache_mb: int, write_buffer_kb: int) -> None:
        self._folder = folder
        self._cache = Cache(cache_mb * MIB)
        self._write_buffer_kb = write_buffer_kb
        self._open: dict[tuple[str, int], RocksStore] = {}

    def open(self, table: str, partition: int) -> RocksStore:
        store = self._open.get((table, partition))
        if store is None:
            path = self._folder / table / str(partition)
            store = self._open[table, partition] = RocksStore(path, self._cache, self._write_buffer_kb)
        return store

    def peek(self, table: str, partition: int) -> RocksStore | None:
        """The store if it is open."""
        return self._open.get((table, partition))

    def on_disk(self) -> set[int]:
        """The partitions that have a store on disk."""
        return {int(path.name) for path in self._folder.glob("*/*") if path.name.isdecimal()}

    def keep(self, partitions: frozenset[int]) -> None:
        """Closes the stores of all other partitions."""
        for table, partition in list(self._open):
            if partition not in partitions:
                self._open.pop((table, partition)).close()

    def sizes(self) -> dict[str, TableSize]:
        """Rows and bytes of each table, over its open stores. Cheap: RocksDB counts them as it writes."""
        found: dict[str, TableSize] = {}
        for (table, _), store in self._open.items():
            rows, size = found.get(table, TableSize(0, 0))
            more = store.size()
            found[table] = TableSize(rows + more.rows, size + more.size_bytes)
        return found

    def close(self) -> None:
        self.keep(frozenset())
