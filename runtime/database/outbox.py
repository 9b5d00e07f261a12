"""A transactional outbox: messages are rows of the transaction that decides them, and go to Kafka from there.

Why nothing is lost, doubled in effect or reordered: docs/decisions/0018-an-outbox-in-order-of-its-keys.md
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
from runtime.errors import BatchTooLarge
from runtime.model.dead_letters import dead_letter
from runtime.model.records import EVENT_ID, Record, Write
from schemas.identifiers import new_event_id
from schemas.topics import Topic
from schemas.wire import Message

M = TypeVar("M", bound=Message)
Publish = Callable[[Sequence[Write]], Awaitable[None]]
"""Returns when every in-sync replica has all of them, in this order within each partition. Raises what it will; some of
them may be written then, but of a partition none without those before it. `BatchTooLarge` says that a topic does not
take what it was sent, and never will as long as it is configured as it is."""

log = logging.getLogger(__name__)

SHARDS = 16
"""Into how many parts the keys fall: one relay at a time takes from each."""

MOST_BYTES = 256 * 1024
"""Of a message, and of what goes to Kafka at a time: half of what a producer sends in one batch."""

_MOST_ROWS = 500
_CHANNEL = "outbox"
_KEYS, _SHARDS = 0x6F757462, 0x6F757473
"""Classes of advisory locks: of the keys that are written, of the shards that are relayed."""

_PUBLISHED = Counter("outbox_published_total", "Messages relayed from the outbox to Kafka", ["service"])
_SET_ASIDE = Counter("outbox_set_aside_total", "Messages of the outbox that their topic does not take", ["service"])
_DELAY = Histogram(
    "outbox_delay_seconds",
    "From the row to its acknowledgement by Kafka",
    ["service"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)


def outbox_table(models: MetaData) -> Table:
    """The table, as a part of a service's models; its migrations make it."""
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
        database: where it is.
        table: made by `outbox_table`.
        patience_s: how long Kafka may take to acknowledge.
    """

    POLL_S = 5.0
    """Between two looks, if no notification comes; usually one does."""
    FIRST_PAUSE_S = 0.25
    LONGEST_PAUSE_S = 15.0
    KEPT = timedelta(days=1)
    """For how long what was published can still be looked at."""
    TIDY_EVERY_S = 60.0
    TIDIED = 5000

    def __init__(self, database: Database, table: Table, patience_s: float) -> None:
        self.database = database
        self._table = table
        self._timeout_s = patience_s + database.timeout_s
        self._woken = asyncio.Event()
        self._most = _MOST_ROWS
        """Rows that are sent at a time. Fewer after a topic refused some: its limit is on what is sent at once."""

    async def add(
        self, connection: AsyncConnection, topic: Topic[M], value: M, *, event_id: str | None = None, **headers: str
    ) -> str:
        """Writes a message in the transaction of `connection`. Returns its event id, a UUIDv7 if none is given.

        The transaction holds the key's lock from now on: who writes another message of this key waits for its end, so
        that ids are drawn in the order of the commits. Who writes several keys does so in one order, say sorted.
        Raises `ValueError` for a message of more than `MOST_BYTES`.
        """
        key, payload, event_id = topic.key(value), value.to_json(), event_id or new_event_id()
        if len(payload) + len(key.encode()) > MOST_BYTES:
            raise ValueError(f"a message for {topic.name} has more than {MOST_BYTES} bytes")
        hashed = zlib.crc32(f"{topic.name}/{key}".encode()) - 2**31
        await connection.execute(select(func.pg_advisory_xact_lock(_KEYS, hashed), func.pg_notify(_CHANNEL, "")))
        row = {
            "event_id": event_id,
            "shard": partition_of(key.encode(), SHARDS),
            "topic": topic.name,
            "key": key,
            "payload": payload,
            "headers": headers,
        }
        await connection.execute(insert(self._table), row)
        return event_id

    @asynccontextmanager
    async def relayed(self, publish: Publish) -> AsyncIterator[None]:
        """Relays to Kafka for as long as the block lasts."""
        tasks = [asyncio.create_task(run) for run in (self._listen(), self._relay(publish))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def relay_once(self, publish: Publish) -> int:
        """Relays what waits and no other relay is at, up to a bound. Returns how many.

        A row that its topic will not take goes to that topic's dead letters, and those behind it go on. If they do not
        take it either, it stays in the table, where no relay looks for it: its shard is below 0.

        Raises `DatabaseUnavailable`, `BrokerUnavailable`; what was written then is perhaps not marked, and is written
        again.
        """
        table = self._table
        async with self.database.transaction(self._timeout_s) as connection:
            # A worker that falls silent must not keep its shards.
            limit = f"SET LOCAL idle_in_transaction_session_timeout = {int(1000 * self._timeout_s)}"
            await connection.execute(text(limit))
            shards = (await connection.scalars(_CLAIM, {"class": _SHARDS, "shards": SHARDS})).all()
            if not shards:
                return 0
            # A statement of its own: it must see all that whoever had the locks before has marked.
            bounds = {"shards": shards, "rows": _MOST_ROWS // len(shards)}
            rows = _no_more_than_a_batch((await connection.execute(_TAKE, bounds)).all())
            if not rows:
                return 0
            failpoints.reach("outbox.taken")
            refused = await self._publish(publish, rows)
            if refused is None:
                rows = rows[: self._most]
                self._most = min(2 * self._most, _MOST_ROWS)
            else:
                rows = rows[:1]
                await self._set_aside(publish, rows[0], refused, connection)
            failpoints.reach("outbox.sent")
            mark = update(table).where(table.c.id.in_([row.id for row in rows]), table.c.shard >= 0)
            delay = table.c.published_at - table.c.created_at
            delays = await connection.scalars(mark.values(published_at=func.clock_timestamp()).returning(delay))
        failpoints.reach("outbox.marked")
        if refused is not None:
            _SET_ASIDE.labels(self.database.service).inc()
            return 1
        _PUBLISHED.labels(self.database.service).inc(len(rows))
        for waited in delays.all():
            _DELAY.labels(self.database.service).observe(waited.total_seconds())
        return len(rows)

    async def _publish(self, publish: Publish, rows: Sequence[Any]) -> BatchTooLarge | None:
        """Publishes the first `_most` rows, which become as few as it takes; or tells why not even one can be."""
        while True:
            try:
                await publish([_write(row) for row in rows[: self._most]])
            except BatchTooLarge as error:
                if min(self._most, len(rows)) == 1:
                    return error
                self._most = min(self._most, len(rows)) // 2
            else:
                return None

    async def _set_aside(self, publish: Publish, row: Any, refused: BatchTooLarge, connection: AsyncConnection) -> None:
        service = self.database.service
        _, _, key, value, headers = _write(row)
        record = Record(row.topic, refused.partition, -1, 0, key, value, headers)
        letter = dead_letter(record, service, "its topic does not take a message of this size", datetime.now(UTC))
        kept = "dead letters"
        try:
            await publish([letter])
        except BatchTooLarge:
            kept = "outbox"
            aside = update(self._table).where(self._table.c.id == row.id)
            await connection.execute(aside.values(shard=-1 - self._table.c.shard))
        log.error(
            "outbox message set aside service=%s topic=%s event_id=%s bytes=%d kept_in=%s",
            service,
            row.topic,
            row.event_id,
            len(row.payload),
            kept,
        )

    async def tidy(self) -> None:
        """Deletes what was published long ago, up to a bound. Raises `DatabaseUnavailable`."""
        table = self._table
        old = table.c.published_at < func.now() - self.KEPT
        async with self.database.transaction() as connection:
            some = select(table.c.id).where(old).limit(self.TIDIED).with_for_update(skip_locked=True)
            await connection.execute(delete(table).where(table.c.id.in_(some.scalar_subquery())))

    async def _relay(self, publish: Publish) -> None:
        tidied, backoff = 0.0, Backoff(self.FIRST_PAUSE_S, self.LONGEST_PAUSE_S)
        while True:
            self._woken.clear()
            try:
                relayed = await self.relay_once(publish)
                if elapsed_s() - tidied > self.TIDY_EVERY_S:
                    await self.tidy()
                    tidied = elapsed_s()
            except Exception as error:  # whatever it is, what waits must go out: it is tried again
                log.warning("outbox not relayed service=%s error=%r", self.database.service, error)
                await backoff.pause()
                continue
            backoff.reset()
            if not relayed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.POLL_S):
                        await self._woken.wait()

    async def _listen(self) -> None:
        """Wakes the relay when a row is committed, by whichever worker. Between two connections it polls."""
        while True:
            ended = asyncio.Event()
            try:
                connection = await self.database.connect()
                try:
                    connection.add_termination_listener(lambda _, ended=ended: ended.set())
                    await connection.add_listener(_CHANNEL, lambda *_: self._woken.set())
                    self._woken.set()
                    await ended.wait()
                finally:
                    connection.terminate()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                log.debug("outbox not listened to service=%s error=%r", self.database.service, error)
            await asyncio.sleep(self.POLL_S)


_CLAIM = text("""
    WITH waiting AS MATERIALIZED (
        SELECT shard FROM generate_series(0, :shards - 1) AS every (shard)
        WHERE EXISTS (SELECT FROM outbox WHERE published_at IS NULL AND outbox.shard = every.shard)
    )
    SELECT shard FROM waiting WHERE pg_try_advisory_xact_lock(:class, shard)
""")

_TAKE = text("""
    SELECT waiting.* FROM unnest(CAST(:shards AS integer[])) AS taken (shard), LATERAL (
        SELECT id, event_id, topic, key, payload, headers FROM outbox
        WHERE published_at IS NULL AND outbox.shard = taken.shard ORDER BY id LIMIT :rows
    ) AS waiting
    ORDER BY id
""")


def _no_more_than_a_batch(rows: Sequence[Any]) -> Sequence[Any]:
    """As many as surely are one batch in each partition: of two, the second might be written without the first."""
    size = 0
    for number, row in enumerate(rows):
        size += len(row.payload) + len(row.key.encode())
        if size > MOST_BYTES and number:
            return rows[:number]
    return rows


def _write(row: Any) -> Write:
    """The message of a row; to which partition it goes is for the producer to say."""
    headers = [(EVENT_ID, str(row.event_id).encode()), *((n, v.encode()) for n, v in row.headers.items())]
    return Write(row.topic, -1, row.key.encode(), row.payload, headers)
