"""The schemas of a history that is rebuilt, and the switch from the one to the other.

The tables of the successor are in a schema of their own, in the database of the history. The switch moves the tables of
both, in one transaction: docs/decisions/0044-rebuild-the-history-in-a-second-schema-and-move-its-tables.md
"""

import asyncio
from collections.abc import Collection

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from history_service.maintenance import MAINTENANCE_LOCK
from runtime.database.pool import Database

NEXT = "history_next"
"""Schema of the history that is being built."""
BEFORE = "history_before"
"""Schema of the history that answered until the switch."""

_LOCK_TIMEOUT = "1s"
"""How long the switch waits for transactions that read a table. New readers wait behind it."""
_CATCH_UP_S = 5.0
"""Seconds that the successor has to catch up while the sinks of the current history wait."""
_POLL_S = 0.05
_SWITCH_S = 60.0
"""Seconds that a switch may take."""

_COPY_LOGS = f"""
    INSERT INTO {NEXT}.sink_logs (id, topic, log_id, cut, first_read_at) OVERRIDING SYSTEM VALUE
    SELECT id, topic, log_id, cut, first_read_at FROM sink_logs ON CONFLICT DO NOTHING
"""
_ADVANCE_NUMBERS = f"""
    SELECT setval(pg_get_serial_sequence('{NEXT}.sink_logs', 'id'), greatest(max(id), 1)) FROM {NEXT}.sink_logs
"""
_BEHIND = f"""
    SELECT count(*) FROM sink_offsets o JOIN sink_logs l ON l.id = o.log
    LEFT JOIN ({NEXT}.sink_offsets n JOIN {NEXT}.sink_logs m ON m.id = n.log)
    ON (n.topic, n.partition) = (o.topic, o.partition)
    WHERE o.topic = ANY (:topics) AND CASE
        WHEN n.log IS NULL THEN true
        WHEN (l.log_id, l.cut) = (m.log_id, m.cut) THEN n.next_offset < o.next_offset
        ELSE m.first_read_at < l.first_read_at
    END
"""
"""Partitions in which the successor is not as far as the current history."""
_WAITING = f"SELECT count(*), coalesce(sum(end_offset - next_offset), 0)::bigint FROM {NEXT}.sink_offsets"
_MOVES = f"""
    WITH tables AS (
        SELECT oid, relname FROM pg_class WHERE relnamespace = '{NEXT}'::regnamespace AND relkind IN ('r', 'p')
    ), functions AS (
        SELECT oid, proname FROM pg_proc WHERE pronamespace = '{NEXT}'::regnamespace
    )
    SELECT 1 AS step, format('ALTER TABLE %I.%I SET SCHEMA {BEFORE}', current_schema(), relname) AS statement
    FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
    AND (relname IN (SELECT relname FROM tables)
         OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'records'::regclass))
    UNION ALL
    SELECT 1, format('ALTER FUNCTION %s SET SCHEMA {BEFORE}', oid::regprocedure) FROM pg_proc
    WHERE pronamespace = current_schema()::regnamespace AND proname IN (SELECT proname FROM functions)
    UNION ALL
    SELECT 2, format('ALTER TABLE {NEXT}.%I SET SCHEMA %I', relname, current_schema()) FROM tables
    UNION ALL
    SELECT 2, format('ALTER FUNCTION %s SET SCHEMA %I', oid::regprocedure, current_schema()) FROM functions
    ORDER BY 1, 2
"""
"""Statements that move the tables and functions of both. Indexes and sequences move with their tables. Whatever else is
in the schema of the current history stays."""


class RebuildError(Exception):
    """A rebuild cannot go on. The text names the remedy."""


class Successor:
    """A second history in the database of the first one.

    Arguments:
        database: of the history that answers.
        topics: logical names of the topics that the service stores.
    """

    def __init__(self, database: Database, topics: Collection[str]) -> None:
        self._database = database
        self._topics = list(topics)

    async def prepare(self) -> None:
        """Makes its schema. Raises `RebuildError` if the history before an earlier rebuild is still there."""
        async with self._database.transaction() as connection:
            if await _exists(connection, BEFORE):
                raise RebuildError(
                    f"The schema {BEFORE} has the history before the last rebuild. Delete it first: "
                    "orders rebuild --drop-before"
                )
            await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {NEXT}"))

    async def copy_logs(self) -> None:
        """Numbers the logs as the current history does: of conflicting records that of the later log counts."""
        async with self._database.transaction() as connection:
            await connection.execute(text(_COPY_LOGS))
            await connection.execute(text(_ADVANCE_NUMBERS))

    async def waiting(self) -> tuple[int, int] | None:
        """The partitions that are read, and the records that wait in them. `None` if another process has switched."""
        try:
            async with self._database.transaction() as connection:
                partitions, records = (await connection.execute(text(_WAITING))).one()
                return partitions, records
        except ProgrammingError:
            async with self._database.transaction() as connection:
                if await _exists(connection, NEXT):
                    raise
            return None

    async def switch(self) -> bool:
        """Makes it the current history. False, and nothing changed, if it has not caught up or tables are in use.

        Sinks of the current history wait while the successor catches up with them; readers do not. Then the tables
        move, once no transaction reads them. The sinks find other offsets, and go on from those.
        """
        try:
            async with self._database.transaction(_SWITCH_S) as connection:
                await connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MAINTENANCE_LOCK})
                await connection.execute(text("LOCK TABLE sink_offsets IN EXCLUSIVE MODE"))
                if not await self._caught_up(connection):
                    return False
                for schema in (NEXT, await connection.scalar(text("SELECT quote_ident(current_schema())"))):
                    await connection.execute(text(f"LOCK TABLE {schema}.sink_offsets IN ACCESS EXCLUSIVE MODE"))
                moves = (await connection.execute(text(_MOVES))).all()
                await connection.execute(text(f"CREATE SCHEMA {BEFORE}"))
                for move in moves:
                    await connection.exec_driver_sql(move.statement)
                await connection.execute(text(f"DROP SCHEMA {NEXT}"))
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == asyncpg.LockNotAvailableError.sqlstate:
                return False
            raise
        return True

    async def drop(self, schema: str) -> bool:
        """Deletes a schema of a rebuild. False if there is none."""
        async with self._database.transaction(_SWITCH_S) as connection:
            found = await _exists(connection, schema)
            await connection.execute(text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
            return found

    async def _caught_up(self, connection: AsyncConnection) -> bool:
        until = asyncio.get_running_loop().time() + _CATCH_UP_S
        while await connection.scalar(text(_BEHIND), {"topics": self._topics}):
            if asyncio.get_running_loop().time() > until:
                return False
            await asyncio.sleep(_POLL_S)
        return True


async def _exists(connection: AsyncConnection, schema: str) -> bool:
    return bool(await connection.scalar(text("SELECT to_regnamespace(:schema) IS NOT NULL"), {"schema": schema}))
