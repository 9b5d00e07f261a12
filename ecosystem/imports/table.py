"""Changes of a table of a legacy PostgreSQL, from a queue that a trigger fills (`queue.sql`).

A watermark on an id or a time of change would miss rows: a transaction that began earlier may commit later. So the
position is a snapshot. The changes that the current snapshot sees, and the last one does not, are new; none is missed,
whatever the order of commits, and long transactions hold up nobody. Within these, the order of the queue is the order
of the changes of a row: the trigger runs while the row is locked.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from string import Template
from typing import Any

import asyncpg

from ecosystem.imports.errors import ImportStopped, SourceUnavailable
from ecosystem.imports.mapping import Columns, TableSource
from ecosystem.imports.positions import ImportPosition, TablePosition
from ecosystem.imports.source import Batch, Row

_QUEUE_SQL = Path(__file__).parent / "queue.sql"
_ROWS = 500
"""Changes that are read at a time."""
_TIMEOUT_S = 30.0
"""Seconds that the database may take to connect, or to answer."""
_NOTHING = "1:1:"
"""The snapshot that sees no transaction."""

_ID = "SELECT system_identifier::text FROM pg_control_system()"
_SNAPSHOT = "SELECT pg_current_snapshot()::text"


def queue_of(table: str) -> str:
    """Returns the name of the queue of a table, in the schema of the table."""
    return f"{table}_orders_import"  # at most 55 characters: PostgreSQL has 63


def queue_sql(source: TableSource) -> str:
    """Returns the statements that make the queue and its trigger, and queue the rows that exist already."""
    queue = queue_of(source.table)
    names = {"table": source.table, "queue": queue, "function": f"{queue}_add"}
    names = {key: _quoted(name) for key, name in names.items()}
    return Template(_QUEUE_SQL.read_text("utf-8")).substitute(names)


async def install_queue(source: TableSource, url: str) -> None:
    """Makes the queue and its trigger. Raises `ImportStopped` if the database refuses."""
    connection = await _connect(url)
    try:
        await connection.execute(queue_sql(source))
    except asyncpg.PostgresError as error:
        raise ImportStopped(f"the queue of {source.table} cannot be made: {error}") from error
    finally:
        await connection.close()


class TableRows:
    """Implements `ecosystem.imports.source.Source` for a table.

    Arguments:
        name: of the import.
        source: which table.
        url: of the legacy database.
        positions: committed positions by table.
    """

    def __init__(self, name: str, source: TableSource, url: str, positions: Mapping[str, ImportPosition]) -> None:
        self._name = name
        self._table = source.table
        self._url = url
        self._position = positions[source.table].table if source.table in positions else None
        self._connection: Any = None
        queue = _quoted(queue_of(source.table))  # the mapping admits plain names only
        self._read = f"""
            SELECT seq, after, before FROM {queue}
            WHERE xid >= pg_snapshot_xmin($1::text::pg_snapshot) AND seq > $3
            AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
            AND pg_visible_in_snapshot(xid, $2::text::pg_snapshot)
            ORDER BY seq LIMIT {_ROWS}
        """
        self._delete = f"DELETE FROM {queue} WHERE xid < pg_snapshot_xmin($1::text::pg_snapshot)"

    async def poll(self) -> Batch | None:
        try:
            connection = await self._connected()
            assert self._position is not None
            position = self._position
            if position.upto is None:
                snapshot = await connection.fetchval(_SNAPSHOT)
                position = position.model_copy(update={"upto": snapshot, "seq": 0})
            rows = await connection.fetch(self._read, position.before, position.upto, position.seq)
        except asyncpg.UndefinedTableError as error:
            raise ImportStopped(
                f"{self._table} has no queue: {error}. `orders import --install` makes it; --show-sql shows how."
            ) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            await self.close()
            raise SourceUnavailable(f"legacy database: {error!r}") from error
        if len(rows) < _ROWS:  # all that `upto` sees
            after = position.model_copy(update={"before": position.upto, "upto": None, "seq": 0})
        else:
            after = position.model_copy(update={"seq": rows[-1]["seq"]})
        if not rows:
            self._position = after
            return None
        changes = [self._row(row) for row in rows]
        return Batch(self._table, changes, ImportPosition(source=f"{self._name}/{self._table}", table=after))

    async def acknowledge(self, batch: Batch) -> None:
        """Deletes what is imported from the queue. If that fails, the next call does it."""
        self._position = batch.position.table
        if self._position is None or self._position.upto is not None:
            return
        try:
            connection = await self._connected()
            await connection.execute(self._delete, self._position.before)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            await self.close()
            raise SourceUnavailable(f"legacy database: {error!r}") from error

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await _connect(self._url)
            system = await self._connection.fetchval(_ID)
            if self._position is None:
                self._position = TablePosition(system=system, before=_NOTHING)
            elif self._position.system != system:
                raise ImportStopped(
                    f"the database of {self._table} is another one than before, whose transaction ids do not compare. "
                    "Import it under another `name`."
                )
        return self._connection

    def _row(self, row: Any) -> Row:
        after, before = (
            json.loads(text, parse_float=Decimal) if text else None for text in (row["after"], row["before"])
        )
        raw = (row["after"] or row["before"]).encode()
        return Row(f"{self._table}:{row['seq']}", raw, _columns(after), _columns(before))


async def _connect(url: str) -> Any:
    try:
        return await asyncpg.connect(
            url,
            timeout=_TIMEOUT_S,
            command_timeout=_TIMEOUT_S,
            server_settings={"application_name": "faust-orders import"},
        )
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        raise SourceUnavailable(f"legacy database: {error!r}") from error


def _columns(row: Mapping[str, Any] | None) -> Columns | None:
    """Text by column, without the columns that are NULL."""
    if row is None:
        return None
    return {name: value if isinstance(value, str) else _text(value) for name, value in row.items() if value is not None}


def _text(value: Any) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else json.dumps(value)


def _quoted(name: str) -> str:
    schema, _, table = name.rpartition(".")
    return f'"{schema or "public"}"."{table}"'
