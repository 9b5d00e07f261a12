"""The declaration of a sink: topics whose records a service stores in its database, in bulk, each once. Pure.

A batch of records becomes one database transaction, which also advances the offsets (`runtime/sink/engine.py`).
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from runtime.model.records import Header
from schemas.topics import CATALOGUE, Topic

T = TypeVar("T")


class SinkRecord(NamedTuple):
    """A record to be stored.

    Arguments:
        log: number of the log in the service's database: another one for a topic that was made anew. Together with
            partition and offset it is unique.
        unreadable: why it, or the records up to `last_offset`, cannot be decoded.
    """

    topic: str
    partition: int
    log: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()
    unreadable: str | None = None
    last_offset: int | None = None

    @property
    def next_offset(self) -> int:
        """The offset after it, and after the records that it stands for."""
        return (self.offset if self.last_offset is None else self.last_offset) + 1


class BulkWriter(Protocol):
    """A transaction of the database, as a sink writes to it. Its errors end the transaction."""

    async def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Appends rows (COPY)."""

    async def execute(self, statement: str, *arguments: Any) -> None:
        """Executes a statement with arguments `$1`, `$2` and so on, for example arrays for `unnest`."""


@dataclass(frozen=True, slots=True, eq=False)
class Sink(Generic[T]):
    """What a service stores of its records.

    Arguments:
        topics: logical names of the topics.
        prepare: makes rows of records, which are in the order of their offsets within a partition. Pure. Called for
            slices of a batch, so that the worker does other things in between.
        prepare_raw: makes rows of one record that the database refused, or that cannot be decoded: as little as is
            certain to be accepted. The record is dead-lettered besides.
        write: writes rows of several slices. It may run again after a rollback.
        before: called with the rows before their transaction begins, for example to create partitions of tables.
        catalogue: declares the topics; the worker creates those that are missing.
    """

    topics: tuple[str, ...]
    prepare: Callable[[Sequence[SinkRecord]], T]
    prepare_raw: Callable[[SinkRecord], T]
    write: Callable[[BulkWriter, Sequence[T]], Awaitable[None]]
    before: Callable[[Sequence[T]], Awaitable[None]] | None = None
    catalogue: tuple[Topic[Any], ...] = CATALOGUE
