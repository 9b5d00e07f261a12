"""Offsets and transactions of a sink in PostgreSQL, on a connection of its own.

By asyncpg: SQLAlchemy has no COPY.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from runtime.common import failpoints
from runtime.database.pool import Database
from runtime.errors import DatabaseUnavailable, OffsetsMoved, RowsRejected
from runtime.model.records import TopicPartition
from runtime.sink.placement import LogChange, LogState, Placement, SinkPosition, StoredPosition, place
from runtime.sink.ports import Moves

_OF_ROWS = ("22", "23", "54")
"""SQLSTATE classes (PostgreSQL documentation, appendix A) of errors of rows: data exception, integrity constraint
violation, program limit exceeded. Any other error does not depend on the rows: the sink waits."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = 253_402_300_799_999

_SELECT = """
    SELECT o.topic, o.partition, o.log, l.log_id, l.cut, o.next_offset
    FROM sink_offsets o JOIN sink_logs l ON l.id = o.log
    WHERE (o.topic, o.partition) IN (SELECT * FROM unnest($1::text[], $2::int[]))
    ORDER BY o.topic, o.partition FOR UPDATE OF o
"""

_INSERT_LOG = """
    WITH made AS (
        INSERT INTO sink_logs (topic, log_id, cut) VALUES ($1, $2, $3)
        ON CONFLICT (topic, log_id, cut) DO UPDATE SET log_id = excluded.log_id RETURNING id
    ) SELECT id FROM made
"""

_LAST_CUT = "SELECT coalesce(max(cut), 0) FROM sink_logs WHERE topic = $1 AND log_id = $2"
"""A log that was read without offsets, as those of another history were copied, is the one after its last cut."""

_INSERT_OFFSET = """
    INSERT INTO sink_offsets (topic, partition, log, next_offset, end_offset) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (topic, partition) DO UPDATE SET
        log = excluded.log, next_offset = excluded.next_offset, end_offset = excluded.end_offset,
        last_produced_at = NULL, checked_at = clock_timestamp()
    WHERE (sink_offsets.log, sink_offsets.next_offset) = ($6, $7)
    RETURNING log
"""

_ADVANCE = """
    WITH locked AS MATERIALIZED (
        SELECT o.topic, o.partition, m.* FROM sink_offsets o
        JOIN unnest($1::text[], $2::int[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::timestamptz[])
            AS m (of_topic, of_partition, of_log, expected, next_offset, end_offset, produced_at)
            ON o.topic = m.of_topic AND o.partition = m.of_partition
        WHERE o.log = m.of_log AND o.next_offset = m.expected
        ORDER BY o.topic, o.partition FOR UPDATE OF o
    )
    UPDATE sink_offsets o SET
        next_offset = m.next_offset, end_offset = m.end_offset, checked_at = clock_timestamp(),
        last_produced_at = coalesce(m.produced_at, o.last_produced_at)
    FROM locked m WHERE o.topic = m.topic AND o.partition = m.partition
"""
"""Compare and set. The rows are locked in one order, whatever worker asks, so that two cannot wait for each other."""


class PostgresSinkDatabase:
    """Implements `runtime.sink.ports.SinkDatabase`.

    Arguments:
        database: the database of the service, which the worker opens and migrates.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._limit_s = 12 * database.timeout_s
        """Seconds: a batch has thousands of rows, where a request has a few."""
        self._connection: Any = None

    async def close(self) -> None:
        """Closes the connection. An open transaction is rolled back by the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def place(
        self, logs: Mapping[TopicPartition, LogState]
    ) -> Mapping[TopicPartition, tuple[SinkPosition, Placement]]:
        topics, partitions = [tp.topic for tp in logs], [tp.partition for tp in logs]
        result = {}
        async with self._begin() as connection:
            rows = await connection.fetch(_SELECT, topics, partitions)
            known = {TopicPartition(row["topic"], row["partition"]): row for row in rows}
            for tp in sorted(logs):
                now, row = logs[tp], known.get(tp)
                stored = row and StoredPosition(row["log"], row["log_id"], row["next_offset"])
                placement = place(stored, now)
                number = row["log"] if row else -1
                if placement.change is not LogChange.NONE:
                    cut = 0
                    if row is None:
                        cut = await connection.fetchval(_LAST_CUT, tp.topic, now.log_id)
                    elif placement.change is LogChange.CUT:
                        cut = row["cut"] + 1
                    number = await connection.fetchval(_INSERT_LOG, tp.topic, now.log_id, cut)
                if row is None or (number, placement.next_offset) != (row["log"], row["next_offset"]):
                    before = (row["log"], row["next_offset"]) if row else (-1, -1)
                    move = (*tp, number, placement.next_offset, max(placement.next_offset, now.end), *before)
                    if await connection.fetchval(_INSERT_OFFSET, *move) is None:
                        raise OffsetsMoved(f"another worker has read {tp.topic}[{tp.partition}] first")
                result[tp] = SinkPosition(number, placement.next_offset), placement
        return result

    @asynccontextmanager
    async def transaction(self, moves: Moves) -> AsyncIterator["PostgresBulkWriter"]:
        order = sorted(moves)
        columns: list[list[Any]] = [
            [tp.topic for tp in order],
            [tp.partition for tp in order],
            [moves[tp].log for tp in order],
            [moves[tp].expected for tp in order],
            [moves[tp].next_offset for tp in order],
            [moves[tp].end for tp in order],
            [_time(moves[tp].produced_ms) for tp in order],
        ]
        async with self._begin() as connection:
            moved = await connection.execute(_ADVANCE, *columns)
            if moved != f"UPDATE {len(order)}":
                raise OffsetsMoved(f"of {len(order)} partitions, {moved.removeprefix('UPDATE ')} are as expected")
            yield PostgresBulkWriter(connection)
            failpoints.reach("sink.written")
        failpoints.reach("sink.committed")

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[Any]:
        """A transaction, within the time limit of a sink: a server that hangs must not be waited for for ever."""
        if self._database.unavailable is not None:
            raise DatabaseUnavailable(f"database of {self._database.service}: {self._database.unavailable}")
        try:
            async with asyncio.timeout(self._limit_s):
                connection = await self._connected()
                transaction = connection.transaction()
                await transaction.start()
                try:
                    yield connection
                except Exception:  # a cancelled transaction is not rolled back here: a server that hangs never answers
                    try:
                        await transaction.rollback()
                    except Exception:  # the connection is lost: its error is that of the block
                        await self.close()
                    raise
                await transaction.commit()
            self._database.failure = None
        except BaseException as error:
            if isinstance(error, (RowsRejected, OffsetsMoved)):
                raise
            state = getattr(error, "sqlstate", None) or ""
            if isinstance(error, (asyncpg.DataError, ValueError, OverflowError)) or state.startswith(_OF_ROWS):
                raise RowsRejected(repr(error)) from error
            await self.close()  # in whatever state it is
            if isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)):
                self._database.failure = repr(error)
                raise DatabaseUnavailable(f"database of {self._database.service}: {error!r}") from error
            raise

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._database.connect()
            # A worker that stops responding must not keep its rows locked.
            limit_ms = int(1000 * self._limit_s)
            await self._connection.execute(f"SET idle_in_transaction_session_timeout = {limit_ms}")
        return self._connection


class PostgresBulkWriter:
    """Implements `runtime.model.sink.BulkWriter`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        await self._connection.copy_records_to_table(table, columns=columns, records=rows)

    async def execute(self, statement: str, *arguments: Any) -> None:
        await self._connection.execute(statement, *arguments)


def _time(milliseconds: int | None) -> datetime | None:
    if milliseconds is None:
        return None
    return _EPOCH + timedelta(milliseconds=min(max(milliseconds, 0), _LATEST_MS))
