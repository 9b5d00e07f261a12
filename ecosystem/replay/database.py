"""Reads orders and their records from the database of the history, page by page."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import ARRAY, ColumnElement, LargeBinary, Select, Text, bindparam, func, or_, select, tuple_
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from history_service import lists
from history_service.filters import Filters, Position
from history_service.freshness import read_lag_s
from history_service.models import LOGS, OFFSETS, ORDERS, RECORDS
from history_service.stages import Stage
from history_service.timeline import StoredRecord
from runtime.model.records import REPLAYED_FROM
from schemas.topics import ORDERS as ORDERS_TOPIC

ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError)
"""What the database may raise."""

_PAGE = 200
"""Orders of a page: each has about fifteen records."""
_MOST_RECORDS = 2000
"""Records of a page of those about no order."""

_ORDER = select(*(ORDERS.c[name] for name in ("id", "state", "product", "customer_id", "attempt", "failed_checks")))
_RECORD = select(
    *(RECORDS.c[name] for name in ("produced_at", "stored_at", "offset", "log", "partition", "stage")),
    LOGS.c.topic,
    *(RECORDS.c[name] for name in ("key", "value", "headers", "order_id")),
).join_from(RECORDS, LOGS, LOGS.c.id == RECORDS.c.log)


class NoHistory(Exception):
    """The database has no history. The text says where to look for it."""


class KnownOrder(NamedTuple):
    """What the history knows of an order. `state` is `None` if only other topics have named it."""

    id: str
    state: str | None
    product: str | None
    customer_id: int | None
    attempt: int
    failed_checks: Collection[str]


class KnownRecord(NamedTuple):
    """A record of the history, and the order that it is about."""

    stored: StoredRecord
    order_id: str | None

    @property
    def timestamp_ms(self) -> int:
        """When it was produced, milliseconds since 1970."""
        return round(self.stored.produced_at.timestamp() * 1000)


class HistoryReader:
    """An open database of the history."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def orders(self, filters: Filters) -> AsyncIterator[Sequence[KnownOrder]]:
        """Yields pages of orders that are listed, newest first."""
        after: Position | None = None
        while True:
            async with self._engine.begin() as connection:
                page = await lists.read_page(connection, filters, after, _PAGE)
            if page.orders:
                yield await self._orders([order.id for order in page.orders])
            if page.last is None:
                return
            after = page.last

    async def orders_by_id(self, ids: Sequence[str]) -> AsyncIterator[Sequence[KnownOrder]]:
        """Yields those of the orders that are known."""
        for begin in range(0, len(ids), _PAGE):
            yield await self._orders(ids[begin : begin + _PAGE])

    async def records_of_orders(self, ids: Sequence[str], stages: Collection[Stage]) -> list[KnownRecord]:
        """Reads the records of orders of some stages, and all that follow from a replay."""
        wanted = or_(RECORDS.c.stage == func.any(_texts(stages)), _is_replay())
        query = _RECORD.where(RECORDS.c.order_id == func.any(_texts(ids)), wanted)
        return await self._read(query.order_by(RECORDS.c.produced_at, RECORDS.c.log, *_PLACE))

    async def dead_letters(self, ids: Sequence[str]) -> list[KnownRecord]:
        """Reads the dead letters of orders."""
        return await self._read(
            _RECORD.where(RECORDS.c.order_id == func.any(_texts(ids)), RECORDS.c.stage == Stage.DEAD_LETTER.value)
        )

    async def records_about_no_order(
        self, topic: str, stage: Stage, filters: Filters, key: str | None
    ) -> AsyncIterator[Sequence[KnownRecord]]:
        """Yields pages of the records of a topic by their place.

        Arguments:
            topic: its logical name.
            stage: of the records.
            filters: whose times bound when the records were produced.
            key: of the records; `None`: all.
        """
        conditions: list[ColumnElement[bool]] = [RECORDS.c.stage == stage.value]
        if filters.since is not None:
            conditions.append(RECORDS.c.produced_at >= filters.since)
        if filters.before is not None:
            conditions.append(RECORDS.c.produced_at < filters.before)
        if key is not None:
            conditions.append(RECORDS.c.key == key.encode(errors="surrogateescape"))
        async with self._engine.begin() as connection:
            logs = (await connection.scalars(select(LOGS.c.id).where(LOGS.c.topic == topic).order_by(LOGS.c.id))).all()
        for log in logs:
            after = -1, -1
            while True:
                query = _RECORD.where(RECORDS.c.log == log, tuple_(*_PLACE) > tuple_(*after), *conditions)
                page = await self._read(query.order_by(*_PLACE).limit(_MOST_RECORDS))
                if page:
                    yield page
                if len(page) < _MOST_RECORDS:
                    break
                after = page[-1].stored.partition, page[-1].stored.offset

    async def partitions(self) -> Mapping[str, int]:
        """Reads the number of partitions of each topic of the history's cluster."""
        count = func.count(OFFSETS.c.partition.distinct())
        async with self._engine.begin() as connection:
            rows = await connection.execute(select(OFFSETS.c.topic, count).group_by(OFFSETS.c.topic))
            return {row[0]: row[1] for row in rows}

    async def lag_s(self) -> float | None:
        """Reads by how many seconds the history may be behind; `None` if that is unknown."""
        async with self._engine.begin() as connection:
            return await read_lag_s(connection)

    async def _orders(self, ids: Sequence[str]) -> Sequence[KnownOrder]:
        query = _ORDER.where(ORDERS.c.id == func.any(_texts(ids)))
        async with self._engine.begin() as connection:
            rows = (await connection.execute(query)).all()
        return [KnownOrder(*row)._replace(failed_checks=frozenset(row.failed_checks or ())) for row in rows]

    async def _read(self, query: Select[Any]) -> list[KnownRecord]:
        async with self._engine.begin() as connection:
            await connection.execute(lists.INDEXES_ONLY)
            rows = (await connection.execute(query)).all()
        return [KnownRecord(StoredRecord(*row[:-1]), row[-1]) for row in rows]


_PLACE = RECORDS.c.partition, RECORDS.c.offset


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[HistoryReader]:
    """Opens the database of a history. Raises `NoHistory`, or one of `ERRORS`."""

    async def connect() -> Any:
        return await asyncpg.connect(url, server_settings={"application_name": "orders replay"})

    try:
        await (await connect()).close()
    except (OSError, ValueError) as error:  # ValueError: no URL of a database
        raise NoHistory(f"the database of the history does not answer ({error}): check HISTORY_DATABASE_URL") from error
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        await _require_history(engine)
        yield HistoryReader(engine)
    finally:
        await engine.dispose()


async def _require_history(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        missing = (await connection.execute(select(func.to_regclass("records").is_(None)))).scalar_one()
        if missing:
            raise NoHistory("the database has no history: is it the one of HISTORY_DATABASE_URL?")
        count = select(func.count()).select_from(OFFSETS).where(OFFSETS.c.topic == ORDERS_TOPIC.name)
        if not (await connection.execute(count)).scalar_one():
            raise NoHistory("the history has no orders yet: run its service, `orders run history`")


def _texts(values: Collection[str]) -> Any:
    return bindparam(None, [str(value) for value in values], ARRAY(Text))


def _is_replay() -> ColumnElement[bool]:
    marks = bindparam(None, [REPLAYED_FROM.encode()], ARRAY(LargeBinary))
    return RECORDS.c.headers.bool_op("@>")(marks)
