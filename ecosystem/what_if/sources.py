"""Where records come from: the database of the history service, or the topics themselves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from ecosystem.clients.reader import Reader, partition_count
from ecosystem.what_if.runner import NEVER, at_ms
from ecosystem.what_if.spool import SpoolWriter
from runtime.common.settings import Settings
from runtime.model.records import Record
from schemas.topics import ORDERS

_PREFETCHED = 5000
"""Rows that the database sends at once."""

_END = datetime(9999, 1, 1, tzinfo=UTC)

DATABASE_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError)
"""What the database may raise, with texts for people."""

Progress = Callable[[int], None]


class NoRecords(Exception):
    """There is no history to judge. The text says where it was looked for."""


async def spool_topics(
    settings: Settings, topics: Sequence[str], folder: Path, until_ms: int, progress: Progress
) -> tuple[int, int]:
    """Spools what the topics still have. Returns the numbers of partitions and records. Raises `NoRecords`."""
    partitions = await partition_count(settings)
    async with Reader(settings, topics) as reader:
        if ORDERS.name not in reader.found:
            raise NoRecords(
                f"there is no topic {settings.topic_prefix + ORDERS.name!r} at {settings.kafka_bootstrap_servers}: "
                "check TOPIC_PREFIX and the brokers"
            )
        records = reader.records(from_beginning=True, follow=False, stop=asyncio.Event())
        return partitions, await _spool(records, folder, until_ms, progress)


async def spool_history(
    url: str, topics: Sequence[str], folder: Path, until_ms: int, progress: Progress
) -> tuple[int, int]:
    """Spools what the history has stored. Returns the numbers of partitions and records. Raises `NoRecords`."""
    connection = await asyncpg.connect(url)
    try:
        logs = await connection.fetch(
            "SELECT id, topic FROM sink_logs WHERE topic = ANY($1::text[]) ORDER BY topic, id", list(topics)
        )
        partitions = await connection.fetchval("SELECT count(*) FROM sink_offsets WHERE topic = $1", ORDERS.name)
        if not partitions:
            raise NoRecords("the history has no orders yet: run its service, `orders run history`")
        until = _END if until_ms == NEVER else at_ms(until_ms)
        records = _stored(connection, [(row["id"], row["topic"]) for row in logs], until)
        return partitions, await _spool(records, folder, until_ms, progress)
    except asyncpg.UndefinedTableError:
        raise NoRecords("the database has no history: is it the one of HISTORY_DATABASE_URL?") from None
    finally:
        await connection.close()


async def _stored(
    connection: asyncpg.Connection, logs: Sequence[tuple[int, str]], until: datetime
) -> AsyncIterator[Record]:
    """Yields stored records, by partition and offset, as a cursor reads them."""
    query = """
        SELECT partition, "offset", (extract(epoch FROM produced_at) * 1000)::bigint AS ms, key, value, headers
        FROM records WHERE log = $1 AND produced_at < $2 ORDER BY partition, "offset"
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for log, topic in logs:
            async for row in connection.cursor(query, log, until, prefetch=_PREFETCHED):
                flat = row["headers"] or ()
                headers = [(name.decode(), value) for name, value in zip(flat[::2], flat[1::2], strict=True)]
                yield Record(topic, row["partition"], row["offset"], row["ms"], row["key"], row["value"], headers)


async def _spool(records: AsyncIterator[Record], folder: Path, until_ms: int, progress: Progress) -> int:
    with SpoolWriter(folder) as spool:
        async for record in records:
            if record.timestamp_ms < until_ms:
                spool.write(record)
                if spool.records % 1000 == 0:
                    progress(spool.records)
    return spool.records
