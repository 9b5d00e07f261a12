"""Copies the records that topics no longer have, from the current history into the one that is built."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from ecosystem.rebuild.successor import NEXT
from history_service import projection, store
from history_service.maintenance import Maintenance
from history_service.projection import Rows
from history_service.stages import TOPIC_STAGES, Stage
from runtime.errors import RowsRejected
from runtime.model.sink import SinkRecord
from runtime.sink.postgres import PostgresSinkDatabase

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_END = 2**63 - 1
_BATCH = 1000
"""Records of a transaction."""
_COPY_LOCK = 0x636F7079
"""Key of the advisory lock: one process at a time copies. The next one finds nothing left."""

_LOGS = f"""
    SELECT DISTINCT l.id, l.topic, o.partition, m.id AS number, n.next_offset, (n.log = m.id) IS TRUE AS is_read
    FROM sink_logs l
    JOIN sink_offsets o USING (topic)
    JOIN {NEXT}.sink_logs m ON (m.topic, m.log_id, m.cut) = (l.topic, l.log_id, l.cut)
    LEFT JOIN {NEXT}.sink_offsets n ON (n.topic, n.partition) = (o.topic, o.partition)
    ORDER BY l.id, o.partition
"""
"""Partitions of all logs: `number` is that of the log in the successor; `is_read` if its sink reads this log."""
_FIRST = f'SELECT min("offset") FROM {NEXT}.records WHERE log = $1 AND partition = $2'
_ROWS = f"""
    SELECT "offset", produced_at, stored_at, stage, order_id, key, value, headers FROM records o
    WHERE log = $1 AND partition = $2 AND "offset" < $3 AND NOT EXISTS (
        SELECT FROM {NEXT}.records n WHERE n.log = $4 AND n.partition = $2 AND n."offset" = o."offset")
    ORDER BY "offset" DESC LIMIT {_BATCH}
"""
"""Backwards: what an interrupted copy has left is before the first record, as it was at the beginning."""


class OlderRecords:
    """Copies records, projected as if they were read now. A copy that was interrupted goes on where it stopped.

    Arguments:
        connect: opens a connection to the current history.
        target: database of the successor.
        maintenance: of the successor.
        on_progress: called with the number of records that are copied.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        target: PostgresSinkDatabase,
        maintenance: Maintenance,
        on_progress: Callable[[int], None],
    ) -> None:
        self._connect = connect
        self._target = target
        self._maintenance = maintenance
        self._on_progress = on_progress
        self._copied = 0

    async def copy(self) -> int:
        """Copies all of them. Returns their number. Raises `DatabaseUnavailable`."""
        connection = await self._connect()
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", _COPY_LOCK)
            for log in await connection.fetch(_LOGS):
                if log["topic"] in TOPIC_STAGES:
                    async for rows in self._missing(connection, log):
                        await self._store(log, rows)
                        self._copied += len(rows)
                        self._on_progress(self._copied)
        finally:
            await connection.close()
        return self._copied

    async def _missing(self, connection: Any, log: Any) -> AsyncIterator[Sequence[Any]]:
        """Yields the rows of a partition of a log that its topic no longer has, in batches."""
        end = _END
        if log["is_read"]:
            # A compacted topic loses records anywhere, others at their beginning.
            stage = TOPIC_STAGES[log["topic"]]
            compacted = stage.topic.retention.compacted and stage.topic.name == log["topic"]
            first = None if compacted else await connection.fetchval(_FIRST, log["number"], log["partition"])
            end = log["next_offset"] if first is None else first
        while rows := await connection.fetch(_ROWS, log["id"], log["partition"], end, log["number"]):
            yield rows
            end = rows[-1]["offset"]

    async def _store(self, log: Any, rows: Sequence[Any]) -> None:
        """Stores a batch; if the database rejects it, record by record, and a rejected one as its bytes alone."""
        with suppress(RowsRejected):
            return await self._write([_projected(log, row) for row in rows])
        for row in rows:
            try:
                await self._write([_projected(log, row)])
            except RowsRejected:
                await self._write([_projected(log, row, raw=True)])
        return None

    async def _write(self, slices: Sequence[Rows]) -> None:
        await self._maintenance.make_partitions(slices)
        async with self._target.transaction({}) as writer:
            await store.write(writer, slices)


def _projected(log: Any, row: Any, *, raw: bool = False) -> Rows:
    """The rows of a stored record. `stored_at` stays as it was."""
    headers = row["headers"] or ()
    names = ((name or b"").decode(errors="surrogateescape") for name in headers[::2])
    pairs = tuple(zip(names, headers[1::2], strict=True))
    milliseconds = (row["produced_at"] - _EPOCH) // _MILLISECOND
    record = SinkRecord(
        log["topic"], log["partition"], log["number"], row["offset"], milliseconds, row["key"], row["value"], pairs
    )
    if raw or (row["stage"] == Stage.UNKNOWN and row["order_id"] is None):
        rows = projection.project_raw(record, lambda: row["stored_at"])
    else:
        rows = projection.project([record], lambda: row["stored_at"])
    return rows
