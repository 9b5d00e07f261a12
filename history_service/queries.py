"""Reads the records of orders from the database."""

from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from history_service.models import LOGS, RECORDS
from history_service.timeline import StoredRecord
from schemas.topics import ORDERS

MOST_RECORDS = 1000
"""Records of an order in an answer. A whole order has about fifteen."""

_STORED = select(
    *(RECORDS.c[name] for name in ("produced_at", "stored_at", "offset", "log", "partition", "stage")),
    LOGS.c.topic,
    *(RECORDS.c[name] for name in ("key", "value", "headers")),
).join_from(RECORDS, LOGS, LOGS.c.id == RECORDS.c.log)


async def records_of_order(
    connection: AsyncConnection, order_id: str, *, until: datetime | None = None
) -> list[StoredRecord]:
    """Reads the records about an order by the time they were produced, one more than `MOST_RECORDS` at most."""
    query = _of_order(order_id)
    if until is not None:
        query = query.where(RECORDS.c.produced_at <= until)
    return await _read(connection, query.limit(MOST_RECORDS + 1))


async def states_of_order(connection: AsyncConnection, order_id: str) -> list[StoredRecord]:
    """Reads the records of an order in the topic `orders`."""
    return await _read(connection, _of_order(order_id).where(LOGS.c.topic == ORDERS.name).limit(MOST_RECORDS))


def _of_order(order_id: str) -> Select[Any]:
    return _STORED.where(RECORDS.c.order_id == order_id).order_by(RECORDS.c.produced_at)


async def _read(connection: AsyncConnection, query: Select[Any]) -> list[StoredRecord]:
    return [StoredRecord(*row) for row in await connection.execute(query)]
