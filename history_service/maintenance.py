"""Maintenance of the tables: makes partitions ahead, drops those past the retention, and updates statistics."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from history_service.partitions import Month, Window
from history_service.projection import Rows
from runtime.database.pool import Database

log = logging.getLogger(__name__)

MAINTENANCE_LOCK = 0x68697374
"""Key of the advisory lock: one worker at a time maintains the tables."""
_TIMEOUT_S = 600.0
"""Seconds that a step may take: moving or deleting many rows takes long."""
_LOCK_TIMEOUT = "5s"
"""How long a step waits for readers of the table. Behind it all other readers and writers wait."""
_ROWS = 10_000
"""Rows deleted in a transaction."""
_PARTITIONS = """
    SELECT child.relname, pg_total_relation_size(child.oid) AS bytes FROM pg_inherits
    JOIN pg_class child ON child.oid = inhrelid WHERE inhparent = 'records'::regclass ORDER BY 1
"""
_DELETE_RECORDS = """
    DELETE FROM records_default WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM records_default WHERE produced_at < :cutoff AND stored_at < :cutoff LIMIT :rows))
"""
_DELETE_ORDERS = """
    DELETE FROM orders WHERE id IN (
        SELECT id FROM orders WHERE updated_at < :cutoff LIMIT :rows FOR UPDATE SKIP LOCKED)
"""
_DELETE_WORDS = """
    DELETE FROM order_words WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM order_words WHERE produced_at < :cutoff LIMIT :rows))
"""
_STALE_TABLES = """
    SELECT c.relname FROM pg_class c LEFT JOIN pg_stat_user_tables ON relid = c.oid
    WHERE c.oid = 'records'::regclass AND c.relkind = 'p'
    AND coalesce(greatest(last_analyze, last_autoanalyze), '-infinity') < now() - interval '1 day'
"""
"""Partitioned tables with old statistics: autovacuum analyses partitions, but not their parent."""


class Maintenance:
    """Keeps the partitions of `records` as the retention demands.

    Arguments:
        database: of the history.
        retention: months that are kept besides the current one; 0 for all.
        clock: the time, UTC.
    """

    EVERY_S = 3600.0
    """Seconds between two runs in a worker."""

    def __init__(self, database: Database, retention: int, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._retention = retention
        self._clock = clock
        self._known: set[Month] = set()

    async def make_partitions(self, slices: Sequence[Rows]) -> None:
        """Makes the partitions that rows need. Raises `DatabaseUnavailable`."""
        months = {Month.of(record[0]) for rows in slices for record in rows.records}
        if months <= self._known:
            return
        for month in sorted(self._window().partitioned(months) - self._known):
            await self._make(month)
        self._known |= months

    async def plan(self) -> list[str]:
        """Says what `run` would do now. Raises `DatabaseUnavailable`."""
        window = self._window()
        async with self._database.transaction() as connection:
            sizes = {row.relname: row.bytes for row in await connection.execute(text(_PARTITIONS))}
            stale = (await connection.scalars(text(_STALE_TABLES))).all()
        steps = [f"make partition {month.partition}" for month in window.ahead if month.partition not in sizes]
        steps += [f"drop partition {name} ({sizes[name] / 2**20:.1f} MiB)" for name in window.expired(sizes)]
        if (cutoff := window.cutoff) is not None:
            before = f"before {cutoff.start:%Y-%m-%d}"
            steps += [f"delete records {before} from records_default", f"delete orders last changed {before}"]
        return [*steps, *(f"analyse {table}" for table in stale)]

    async def run(self) -> None:
        """Does what is due, unless another worker does. Raises `DatabaseUnavailable`."""
        window = self._window()
        for month in window.ahead:
            await self._make(month)
        async with self._exclusive() as connection:
            names = [row.relname for row in await connection.execute(text(_PARTITIONS))]
            for name in window.expired(names):
                await connection.execute(text(f"DROP TABLE {name}"))
                log.info("partition dropped name=%s", name)
        if (cutoff := window.cutoff) is not None:
            for statement in (_DELETE_RECORDS, _DELETE_ORDERS, _DELETE_WORDS):
                await self._delete(statement, cutoff.start)
        async with self._exclusive() as connection:
            for table in (await connection.scalars(text(_STALE_TABLES))).all():
                await connection.execute(text(f"ANALYZE {table}"))

    def _window(self) -> Window:
        return Window(self._clock(), self._retention)

    async def _make(self, month: Month) -> None:
        """Makes the partition of a month, if there is none. Moves its rows out of `records_default`."""
        name, start, end = month.partition, month.start.isoformat(), month.plus(1).start.isoformat()
        within = f"produced_at >= '{start}' AND produced_at < '{end}'"
        async with self._exclusive() as connection:
            if await connection.scalar(text("SELECT to_regclass(:name)"), {"name": name}) is not None:
                return
            await connection.execute(text("LOCK TABLE records_default IN ACCESS EXCLUSIVE MODE"))
            await connection.execute(
                text(f"CREATE TABLE {name} (LIKE records INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
            )
            moved = f"WITH moved AS (DELETE FROM records_default WHERE {within} RETURNING *)"  # noqa: S608 - no input
            await connection.execute(text(f"{moved} INSERT INTO {name} TABLE moved"))
            attach = f"ALTER TABLE records ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')"
            await connection.execute(text(attach))
            log.info("partition made name=%s", name)

    async def _delete(self, statement: str, cutoff: datetime) -> None:
        while True:
            async with self._exclusive() as connection:
                done = await connection.execute(text(statement), {"cutoff": cutoff, "rows": _ROWS})
                if done.rowcount < _ROWS:
                    return

    @asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[AsyncConnection]:
        """A transaction in which no other worker maintains the tables."""
        async with self._database.transaction(_TIMEOUT_S) as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MAINTENANCE_LOCK})
            await connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
            yield connection
