"""What a service knows of each key, as of a version: messages that come again or late change nothing, gaps are told."""

from typing import Generic, TypeVar

from runtime.model.service import Context, Table
from schemas.wire import Message


class Versioned(Message):
    """A row of what is known of a key since its `version`, which counts from 1."""

    version: int


V = TypeVar("V", bound=Versioned)


class VersionedTable(Generic[V]):
    """A table of what is known. Its service lists `table`."""

    def __init__(self, name: str, model: type[V]) -> None:
        self.table = Table(name, model)

    def get(self, ctx: Context, key: str) -> V | None:
        return ctx.get(self.table, key)

    def put(self, ctx: Context, key: str, row: V) -> None:
        ctx.put(self.table, key, row)

    def missing(self, ctx: Context, key: str, version: int) -> int | None:
        """How many versions before this one did not come; `None` if this one is known already, or what follows it.

        Counts `gap` and `repeated`.
        """
        known = self.get(ctx, key)
        missing = version - (known.version if known else 0) - 1
        if missing < 0:
            ctx.count("repeated")
            return None
        if missing:
            ctx.count("gap")
        return missing
