"""Declarations of timers and of tables whose rows expire."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from runtime.model.context import Context, Table

OnKey = Callable[[str, Context], None]


@dataclass(frozen=True, slots=True, eq=False)
class Timer:
    r"""A kind of timer of a service.

    Arguments:
        name: unique within the service.
        on_due: called with the key of a due timer.
        prefix: begins the keys of its rows. Only for kinds whose rows in earlier versions begin differently; one kind
            of a service may have none. No printable key begins with the default, so kinds never collide.
        inherits: whether a timer that is set by a replayed message counts as replayed, too. Not where a timer acts on
            behalf of other messages than the one that set it.

    >>> deadline = Timer("deadline", print)
    >>> deadline.row_key("o-1")
    'deadline\x1fo-1'
    >>> deadline.key("deadline\x1fo-1")
    'o-1'
    """

    name: str
    on_due: OnKey
    prefix: str | None = None
    inherits: bool = True

    def row_key(self, key: str) -> str:
        """Key of the row in the timer table of the service."""
        return f"{self.name}\x1f{key}" if self.prefix is None else self.prefix + key

    def key(self, row_key: str) -> str:
        """The key that the timer was set for."""
        return row_key[len(self.row_key("")) :]


class TtlRows(Protocol):
    """A table whose rows expire. See `runtime.state.ttl_table.TtlTable`."""

    @property
    def tables(self) -> tuple[Table[Any], ...]: ...

    def expire(self, hour: str, ctx: Context) -> Sequence[tuple[str, Any]]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Expiring:
    """A TTL table of a service. The runtime sets its timers and deletes expired rows.

    Arguments:
        table: the TTL table.
        on_expired: called with key and row of each deleted row.
    """

    table: TtlRows
    on_expired: Callable[[str, Any, Context], None] | None = None

    def expire(self, hour: str, ctx: Context) -> None:
        """Deletes the rows of an expired hour."""
        for key, row in self.table.expire(hour, ctx):
            if self.on_expired is not None:
                self.on_expired(key, row, ctx)


def _unreachable(hour: str, ctx: Context) -> None:
    raise NotImplementedError(hour)  # each service expires its own TTL tables


EXPIRY = Timer("expiry", _unreachable, prefix="", inherits=False)
"""The timer of all TTL tables of a service, by hour."""
