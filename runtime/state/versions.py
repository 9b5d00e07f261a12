"""Tables of versioned keys: repeated and late messages change nothing, missing versions are counted."""

from typing import Generic, TypeVar

from runtime.model.service import Context, Table
from schemas.wire import Message

GAP, REPEATED = EVENTS = "gap", "repeated"
"""Events that a service with such a table counts."""


class Versioned(Message):
    """A row with the version of its key that it was made of. Versions count from 1."""

    version: int


V = TypeVar("V", bound=Versioned)


class VersionedTable(Generic[V]):
    """A table of versioned rows. Its service lists `table`."""

    def __init__(self, name: str, model: type[V]) -> None:
        self.table = Table(name, model)

    def get(self, ctx: Context, key: str) -> V | None:
        return ctx.get(self.table, key)

    def put(self, ctx: Context, key: str, row: V) -> None:
        ctx.put(self.table, key, row)

    def gap_before(self, ctx: Context, key: str, version: int) -> int | None:
        """Number of versions missing before this one; `None` if this version or a later one is known already.

        Counts the events `gap` and `repeated`.
        """
        known = self.get(ctx, key)
        gap = version - (known.version if known else 0) - 1
        if gap < 0:
            ctx.count(REPEATED)
            return None
        if gap:
            ctx.count(GAP)
        return gap
