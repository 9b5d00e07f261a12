"""State stores: one per table and partition. In memory here, on disk in `rocks`."""

from collections.abc import Iterator, Mapping
from typing import Protocol

Rows = Mapping[bytes, bytes | None]
"""Changed rows by key; `None` deletes."""


class Store(Protocol):
    """The rows of one table in one partition, and the changelog offset that they include."""

    @property
    def offset(self) -> int | None:
        """Offset of the last changelog record applied; `None` for an empty store."""

    @property
    def log_id(self) -> str | None:
        """Id of the changelog of these rows; `None` if it was never stored, or the store was cleared since."""

    def set_log_id(self, log_id: str) -> None:
        """Stores the id of the changelog."""

    def get(self, key: bytes) -> bytes | None: ...

    def items(self) -> Iterator[tuple[bytes, bytes]]: ...

    def keys(self, first: bytes) -> Iterator[bytes]:
        """The keys from `first` on, in order."""

    def apply(self, rows: Rows, offset: int) -> None:
        """Writes rows and offset atomically: a crash leaves both or neither."""

    def mark_complete(self, offset: int) -> None:
        """Marks the store as complete now: it includes its changelog up to `offset`, the last one."""

    @property
    def stale(self) -> bool:
        """Whether the store was last complete so long ago that its changelog may have dropped tombstones since."""

    def clear(self) -> None:
        """Deletes all rows and the offset."""

    def close(self) -> None: ...


class Stores(Protocol):
    """Opens stores. The same (table, partition) gives the same store until it is closed."""

    def open(self, table: str, partition: int) -> Store: ...

    def peek(self, table: str, partition: int) -> Store | None:
        """The store if it is open."""

    def keep(self, partitions: frozenset[int]) -> None:
        """Closes the stores of all other partitions."""

    def close(self) -> None: ...


class MemoryStore:
    """A store for tests and simulations."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.offset: int | None = None
        self.log_id: str | None = None

    def set_log_id(self, log_id: str) -> None:
        self.log_id = log_id

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(self.rows.items()))

    def keys(self, first: bytes) -> Iterator[bytes]:
        return iter(sorted(key for key in self.rows if key >= first))

    def apply(self, rows: Rows, offset: int) -> None:
        for key, value in rows.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self.offset = offset

    def mark_complete(self, offset: int) -> None:
        self.offset = offset

    @property
    def stale(self) -> bool:
        return False

    def clear(self) -> None:
        self.rows.clear()
        self.offset = self.log_id = None

    def close(self) -> None:
        pass


class MemoryStores:
    """Stores that live as long as this object: a worker's disk, in tests and simulations."""

    def __init__(self) -> None:
        self.stores: dict[tuple[str, int], MemoryStore] = {}

    def open(self, table: str, partition: int) -> MemoryStore:
        return self.stores.setdefault((table, partition), MemoryStore())

    def peek(self, table: str, partition: int) -> MemoryStore | None:
        return self.stores.get((table, partition))

    def keep(self, partitions: frozenset[int]) -> None:
        pass

    def close(self) -> None:
        pass
