"""Positions of imports: a compacted topic, written in the transaction of the messages that they stand for."""

import asyncio

from pydantic import Field

from ecosystem.clients.reader import Reader
from runtime.common.settings import Settings
from schemas.topics import COMPACTED, Topic
from schemas.wire import Message


class FilePosition(Message):
    """How far a file is read: bytes, lines, and the SHA-256 of the last bytes before, which must stay as they are."""

    offset: int = Field(default=0, ge=0)
    line: int = Field(default=0, ge=0)
    digest: str = ""


class TablePosition(Message):
    """How far the queue of a table is read.

    All changes are read that the snapshot `before` sees; and of those that `upto` sees, the ones up to `seq`. Snapshots
    are texts of PostgreSQL's type `pg_snapshot`. `system` identifies the server, whose transaction ids they name.
    """

    system: str
    before: str
    upto: str | None = None
    seq: int = 0


class ImportPosition(Message):
    """Position of an import in one of its sources: `<import>/<file name>` or `<import>/<table>`."""

    source: str
    file: FilePosition | None = None
    table: TablePosition | None = None


POSITIONS = Topic("import-positions", ImportPosition, lambda p: p.source, "import", COMPACTED)


async def read_positions(settings: Settings, name: str) -> dict[str, ImportPosition]:
    """Returns the committed positions of an import by source, without the import's name."""
    found: dict[str, ImportPosition] = {}
    async with Reader(settings, [POSITIONS.name]) as reader:
        async for record in reader.records(from_beginning=True, follow=False, stop=asyncio.Event()):
            if record.value is not None and (record.key or b"").startswith(f"{name}/".encode()):
                position = ImportPosition.from_json(record.value)
                found[position.source.removeprefix(f"{name}/")] = position
    return found
