"""A transactional outbox: messages are rows, written with the state they describe, and relayed to Kafka.

Why no message is lost, reordered or counted twice: docs/decisions/0018-relay-an-outbox-in-the-order-of-its-keys.md
"""

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import asyncpg
from prometheus_client import Counter, Histogram
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.common import failpoints
from runtime.common.backoff import Backoff
from runtime.common.clock import elapsed_s
from runtime.common.partitioning import partition_of
from runtime.database.pool import Database
from runtime.errors import BatchTooLarge, DatabaseUnavailable
from runtime.metrics.database import METRICS, OutboxStatus
from runtime.model.dead_letters import dead_letter
from runtime.model.records import EVENT_ID, Record, Write
from runtime.model.traces import current_values
from schemas.identifiers import new_event_id
from schemas.topics import Topic
from schemas.wire import Message

M = TypeVar("M", bound=Message)
Publish = Callable[[Sequence[Write]], Awaitable[None]]
"""Returns when every in-sync replica has all messages, in this order within each partition.

After an error some messages may be written, but none of a partition without those before it. `BatchTooLarge`: a topic
does not accept a batch of this size, and will not until its configuration changes."""

log = logging.getLogger(__name__)

SHARDS = 16
"""Number of shards of the key space. One relay at a time publishes from a shard."""

MAX_BYTES = 256 * 1024
"""Bytes of a message, and of all messages published at a time: half of a producer's batch."""

_MAX_ROWS = 500
"""Messages published at a time."""

_CHANNEL = "outbox"
_KEYS, _SHARDS = 0x6F757462, 0x6F757473
"""Classes of PostgreSQL advisory locks: one for keys being written, one for shards being relayed."""

_PUBLISHED = Counter("faust_orders_outbox_published_total", "Messages relayed from the outbox to Kafka", ["service"])
_DEAD_LETTERS = Counter(
    "faust_orders_outbox_dead_letters_total", "Messages of the outbox that exceed what their topic accepts", ["service"]
)
_DELAY = Histogram(
    "faust_orders_outbox_delay_seconds",
    "Seconds from the insertion of a message into the outbox to its acknowledgement by Kafka",
    ["service"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)


def outbox_table(models: MetaData) -> Table:
    """The table `outbox`, as part of a service's models. The service's migrations create it."""
    table = Table(
        "outbox",
        models,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("event_id", Uuid, nullable=False, unique=True),
        Column("shard", SmallInteger, nullable=False),
        Column("topic", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("headers", JSONB, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
        Column("published_at", DateTime(timezone=True)),
    )
    Index("outbox_waiting", table.c.shard, table.c.id, postgresql_where=table.c.published_at.is_(None))
    Index("outbox_published", table.c.published_at, postgresql_where=table.c.published_at.is_not(None))
    return table


class Outbox:
    """The outbox in a service's database. Any number of workers may write to it and relay from it.

    Arguments:
        database: the service's database.
        table: made by `outbox_table`.
        publish_timeout_s: seconds that Kafka may take to acknowledge.
    """

    POLL_S = 5.0
    """Seconds between two polls of the table without a notification; usually one comes earlier."""
    FIRST_PAUSE_S = 0.25
    """Seconds before the first retry after an error."""
    LONGEST_PAUSE_S = 15.0
    """Seconds between two retries at most."""
    RETENTION = timedelta(days=1)
    """How long published rows are kept, for operators."""
    CLEANUP_EVERY_S = 60.0
    MEASURE_S = 5.0
    """Seconds between two measurements of the messages that wait."""
    CLEANUP_ROWS = 5000
    """Rows deleted in one transaction at most."""

    def __init__(self, database: Database, table: Table, publish_timeout_s: float) -> None:
        self.database = database
        self._table = table
        self._timeout_s = publish_timeout_s + database.timeout_s
        self._notified = asyncio.Event()
        self._waiting: tuple[int, float | None] | None = None
        """Messages that wait, and when the oldest was written, in seconds of `elapsed_s`."""
        self._max_rows = _MAX_ROWS
        """Rows published at a time; halved when a topic rejects a batch as too large, as its limit is on batches."""

    async def add(
        self, connection: AsyncConnection, topic: Topic[M], value: M, *, event_id: str | None = None, **headers: str
    ) -> str:
        """Writes a message in the transaction of `connection`. Returns its event id, a UUIDv7 by default.

        The transaction holds the key's lock until it ends, so that ids of one key have the order of the commits. To
        avoid deadlocks, a transaction that writes several keys writes them in a fixed order, for example sorted. The
        row keeps the trace of the request, if there is one.
        Raises `ValueError` for a message of more than `MAX_BYTES`.
        """
        key, payload, event_id = topic.key(value), value.to_json(), event_id or new_event_id()
        if len(payload) + len(key.encode()) > MAX_BYTES:
            raise ValueError(f"a message for {topic.name} exceeds {MAX_BYTES} bytes; shorten it")
        hashed = zlib.crc32(f"{topic.name}/{key}".encode()) - 2**31
        await connection.execute(select(func.pg_advisory_xact_lock(_KEYS, hashed), func.pg_notify(_CHANNEL, "")))
        row = {
            "event_id": event_id,
            "shard": partition_of(key.encode(), SHARDS),
            "topic": topic.name,
            "key": key,
            "payload": payload,
            "headers": {**headers, **current_values()},
        }
        await connection.execute(insert(self._table), row)
        return event_id

    @asynccontextmanager
    async def relay(self, publish: Publish) -> AsyncIterator[None]:
        """Relays messages to Kafka until the end of the block."""
        METRICS.add_outbox(self)
        for counter in (_PUBLISHED, _DEAD_LETTERS):
            counter.labels(self.database.service)
        tasks = [asyncio.create_task(run) for run in (self._listen(), self._run_relay(publish), self._measure())]
        try:
            yield
        finally:
            METRICS.remove_outbox(self)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def waiting_status(self) -> OutboxStatus | None:
        """The messages that wait, as of the last measurement; `None` before the first one. For metrics."""
        if self._waiting is None:
            return None
        count, since = self._waiting
        return OutboxStatus(self.database.service, count, 0.0 if since is None else max(0.0, elapsed_s() - since))

    async def relay_once(self, publish: Publish) -> int:
        """Publishes waiting rows of shards that no other relay has locked. Returns how many, up to a limit.

        A row that exceeds what its topic accepts becomes a dead letter. If the dead letters' topic rejects it, too, the
        row stays in the table with a negative shard, which no relay reads.

        Raises `DatabaseUnavailable` or `BrokerUnavailable`. Rows that were published but not marked by then are
        published again.
        """
        table = self._table
        async with self.database.transaction(self._timeout_s) as connection:
            # A worker that stops responding must not keep its shards locked.
            limit = f"SET LOCAL idle_in_transaction_session_timeout = {int(1000 * self._timeout_s)}"
            await connection.execute(text(limit))
            shards = (await connection.scalars(_LOCK_SHARDS, {"class": _SHARDS, "shards": SHARDS})).all()
            if not shards:
                return 0
            # A separate statement, whose snapshot includes what the previous holder of the locks has marked.
            limits = {"shards": shards, "rows": _MAX_ROWS // len(shards)}
            rows = _within_one_batch((await connection.execute(_SELECT_WAITING, limits)).all())
            if not rows:
                return 0
            failpoints.reach("outbox.read")
            rejected = await self._publish(publish, rows)
            if rejected is None:
                rows = rows[: self._max_rows]
                self._max_rows = min(2 * self._max_rows, _MAX_ROWS)
            else:
                rows = rows[:1]
                await self._dead_letter(publish, rows[0], rejected, connection)
            failpoints.reach("outbox.sent")
            published = update(table).where(table.c.id.in_([row.id for row in rows]), table.c.shard >= 0)
            delay = table.c.published_at - table.c.created_at
            delays = await connection.scalars(published.values(published_at=func.clock_timestamp()).returning(delay))
        failpoints.reach("outbox.marked")
        if rejected is not None:
            _DEAD_LETTERS.labels(self.database.service).inc()
            return 1
        _PUBLISHED.labels(self.database.service).inc(len(rows))
        for row_delay in delays.all():
            _DELAY.labels(self.database.service).observe(row_delay.total_seconds())
        return len(rows)

    async def _publish(self, publish: Publish, rows: Sequence[Any]) -> BatchTooLarge | None:
        """Publishes the first `_max_rows` rows, halved until their batch is accepted. Returns the error of a single row
        that is rejected."""
        while True:
            try:
                await publish([_write(row) for row in rows[: self._max_rows]])
            except BatchTooLarge as error:
                if min(self._max_rows, len(rows)) == 1:
                    return error
                self._max_rows = min(self._max_rows, len(rows)) // 2
            else:
                return None

    async def _dead_letter(
        self, publish: Publish, row: Any, rejected: BatchTooLarge, connection: AsyncConnection
    ) -> None:
        service = self.database.service
        _, _, key, value, headers = _write(row)
        record = Record(row.topic, rejected.partition, -1, 0, key, value, headers)
        letter = dead_letter(record, service, "its topic does not accept a message of this size", datetime.now(UTC))
        kept = "dead letters"
        try:
            await publish([letter])
        except BatchTooLarge:
            kept = "outbox"
            parked = update(self._table).where(self._table.c.id == row.id)
            await connection.execute(parked.values(shard=-1 - self._table.c.shard))
        log.error(
            "outbox message dead-lettered service=%s topic=%s event_id=%s bytes=%d kept_in=%s",
            service,
            row.topic,
            row.event_id,
            len(row.payload),
            kept,
        )

    async def delete_published(self) -> None:
        """Deletes rows published longer than `RETENTION` ago, up to a limit. Raises `DatabaseUnavailable`."""
        table = self._table
        expired = table.c.published_at < func.now() - self.RETENTION
        async with self.database.transaction() as connection:
            ids = select(table.c.id).where(expired).limit(self.CLEANUP_ROWS).with_for_update(skip_locked=True)
            await connection.execute(delete(table).where(table.c.id.in_(ids.scalar_subquery())))

    async def _run_relay(self, publish: Publish) -> None:
        cleaned_at, backoff = 0.0, Backoff(self.FIRST_PAUSE_S, self.LONGEST_PAUSE_S)
        while True:
            self._notified.clear()
            try:
                relayed = await self.relay_once(publish)
                if elapsed_s() - cleaned_at > self.CLEANUP_EVERY_S:
                    await self.delete_published()
                    cleaned_at = elapsed_s()
            except Exception as error:  # after any error the rows still have to be published
                log.warning("outbox relay failed, retried service=%s error=%r", self.database.service, error)
                await backoff.pause()
                continue
            backoff.reset()
            if not relayed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.POLL_S):
                        await self._notified.wait()

    async def _measure(self) -> None:
        """Measures what waits: apart from the relay, which waits itself while Kafka does not answer."""
        while True:
            try:
                async with self.database.transaction() as connection:
                    count, age_s = (await connection.execute(_MEASURE_WAITING, {"shards": SHARDS})).one()
                self._waiting = count, None if age_s is None else elapsed_s() - float(age_s)
            except DatabaseUnavailable:
                pass  # what waited still waits, and its age grows
            except Exception as error:
                log.warning("outbox not measured service=%s error=%r", self.database.service, error)
            await asyncio.sleep(self.MEASURE_S)

    async def _listen(self) -> None:
        """Wakes the relay when any worker commits a row. While it has no connection, the relay polls."""
        while True:
            ended = asyncio.Event()
            try:
                connection = await self.database.connect()
                try:
                    connection.add_termination_listener(lambda _, ended=ended: ended.set())
                    await connection.add_listener(_CHANNEL, lambda *_: self._notified.set())
                    self._notified.set()
                    await ended.wait()
                finally:
                    connection.terminate()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                log.debug("outbox listener disconnected service=%s error=%r", self.database.service, error)
            await asyncio.sleep(self.POLL_S)


# At most 10,000 rows are counted: after a long outage of Kafka, millions may wait.
_MEASURE_WAITING = text("""
    SELECT
        (SELECT count(*) FROM (SELECT FROM outbox WHERE published_at IS NULL AND shard >= 0 LIMIT 10000) AS counted),
        (SELECT extract(epoch FROM clock_timestamp() - min(oldest.created_at))
         FROM generate_series(0, :shards - 1) AS every (shard), LATERAL (
             SELECT created_at FROM outbox
             WHERE published_at IS NULL AND outbox.shard = every.shard ORDER BY id LIMIT 1
         ) AS oldest)
""")

_LOCK_SHARDS = text("""
    WITH waiting AS MATERIALIZED (
        SELECT shard FROM generate_series(0, :shards - 1) AS every (shard)
        WHERE EXISTS (SELECT FROM outbox WHERE published_at IS NULL AND outbox.shard = every.shard)
    )
    SELECT shard FROM waiting WHERE pg_try_advisory_xact_lock(:class, shard)
""")

_SELECT_WAITING = text("""
    SELECT waiting.* FROM unnest(CAST(:shards AS integer[])) AS locked (shard), LATERAL (
        SELECT id, event_id, topic, key, payload, headers FROM outbox
        WHERE published_at IS NULL AND outbox.shard = locked.shard ORDER BY id LIMIT :rows
    ) AS waiting
    ORDER BY id
""")


def _within_one_batch(rows: Sequence[Any]) -> Sequence[Any]:
    """The first rows that fit into one batch: of two batches, the second could be written without the first."""
    size = 0
    for number, row in enumerate(rows):
        size += len(row.payload) + len(row.key.encode())
        if size > MAX_BYTES and number:
            return rows[:number]
    return rows


def _write(row: Any) -> Write:
    """The message of a row. The publisher chooses the partition."""
    headers = [(EVENT_ID, str(row.event_id).encode()), *((n, v.encode()) for n, v in row.headers.items())]
    return Write(row.topic, -1, row.key.encode(), row.payload, headers)
