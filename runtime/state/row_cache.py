"""A cache of decoded rows: a row that is read batch after batch is read from its store and decoded once."""

from collections.abc import Mapping
from typing import Any, TypeVar

from runtime.model.context import Table
from schemas.wire import Message

M = TypeVar("M", bound=Message)

_Key = tuple[str, int, str]


class RowCache:
    """The rows of owned stores that were read or changed last, as of the last applied batch.

    Messages are immutable, so processors and HTTP handlers share them. Rows that expire are not kept: each is read once
    or twice in its life.

    A generation of rows is dropped as a whole once there is a younger one. So a read moves nothing, as it would in a
    list of rows by their last use, and a row in use is found again in the young generation by its next change or read.

    Arguments:
        generation: rows of a generation; there are two. A row of an order takes some 3 KiB.

    >>> from schemas.messages import StockLevel
    >>> levels = Table("counter-levels", StockLevel)
    >>> cache = RowCache()
    >>> cache.changed(levels, 0, {"mug": StockLevel(product="mug", count=3), "cup": None})
    >>> cache.get(levels, 0, "mug")
    StockLevel(product='mug', count=3)
    >>> cache.get(levels, 0, "cup") is None
    True
    """

    def __init__(self, generation: int = 2048) -> None:
        self._generation = generation
        self._young: dict[_Key, Any] = {}
        self._old: dict[_Key, Any] = {}

    def get(self, table: Table[M], partition: int, key: str) -> M | None:
        """The row; `None` if it is not cached."""
        place = table.name, partition, key
        row: M | None = self._young.get(place)
        if row is None:
            row = self._old.get(place)
            if row is not None:
                self._add(place, row)
        return row

    def add(self, table: Table[M], partition: int, key: str, row: M) -> None:
        """Adds a row that was read from its store."""
        if not table.expiring:
            self._add((table.name, partition, key), row)

    def changed(self, table: Table[Any], partition: int, rows: Mapping[str, Message | None]) -> None:
        """Follows the changes of a batch that was applied; `None` deletes."""
        if table.expiring:
            return
        for key, row in rows.items():
            place = table.name, partition, key
            if row is not None:
                self._add(place, row)
            else:
                self._young.pop(place, None)
                self._old.pop(place, None)

    def clear(self) -> None:
        """Forgets all rows: the partitions are no longer owned, or are restored."""
        self._young, self._old = {}, {}

    def _add(self, place: _Key, row: Message) -> None:
        if len(self._young) >= self._generation:
            self._young, self._old = {}, self._young
        self._young[place] = row
