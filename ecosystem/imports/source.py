"""What an import needs of its source."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ecosystem.imports.mapping import Columns
from ecosystem.imports.positions import ImportPosition


class Row(NamedTuple):
    """A row of the source.

    Arguments:
        place: where it is, for people: `payments.csv:17`.
        raw: the row as the source has it, for its dead letter.
        columns: its values; `None` if it cannot be parsed, for the reason `error`, or is deleted.
        before: its values before a change or deletion, if they are known.
        error: why it cannot be parsed.
    """

    place: str
    raw: bytes
    columns: Columns | None
    before: Columns | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows in their order, and the position after them. `source` is the name of the file or table."""

    source: str
    rows: Sequence[Row]
    position: ImportPosition


class Source(Protocol):
    """A source of rows.

    Its calls raise `SourceUnavailable`, and `ImportStopped` if its content contradicts a position.
    """

    async def poll(self) -> Batch | None:
        """Returns the next rows after the last acknowledged position; `None` if there are none now."""

    async def acknowledge(self, batch: Batch) -> None:
        """Called once the rows and the position are committed."""

    async def close(self) -> None:
        """Releases files and connections."""
