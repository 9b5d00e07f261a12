"""Reads a service's database in one read-only snapshot."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import asyncpg

from ecosystem.audit.database_rows import CheckinRow, ProductRow
from ecosystem.audit.facts import Fact
from ecosystem.audit.report import AuditError
from ecosystem.audit.sources import Source
from schemas.messages import ProductEvent
from schemas.wire import Message

_TIMEOUT_S = 10.0
_PREFETCH = 1000


class TableQuery(NamedTuple):
    """A query for rows with the fields of `model`, and columns `key` and `moment` (when the row was written)."""

    service: str
    query: str
    model: type[Message]


CHECK_INS = TableQuery(
    "checkin",
    """
    SELECT check_ins.event_id::text, order_no, internet_no, staff_code, job_status, checkin_latitude,
        checkin_longitude, checkin_date, status, outbox.event_id IS NULL OR published_at IS NOT NULL AS published,
        order_no AS key, check_ins.created_at AS moment
    FROM check_ins LEFT JOIN outbox ON outbox.event_id = check_ins.event_id
    """,
    CheckinRow,
)
PRODUCTS = TableQuery(
    "products",
    """
    SELECT code, name, price, version, state,
        code NOT IN (SELECT key FROM outbox WHERE published_at IS NULL) AS published, code AS key, changed_at AS moment
    FROM products
    """,
    ProductRow,
)
PRODUCT_LOG = TableQuery(
    "product-log",
    """
    SELECT event_id::text, kind, code, name, price, version, at, code AS key, recorded_at AS moment
    FROM product_log ORDER BY id
    """,
    ProductEvent,
)


async def rows(url: str, query: TableQuery, source: Source) -> AsyncIterator[tuple[bytes, Fact]]:
    """Yields every row with its key. Raises `AuditError` if the database cannot be read."""
    try:
        connection = await asyncpg.connect(url, timeout=_TIMEOUT_S)
        try:
            number = 0
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                async for row in connection.cursor(query.query, prefetch=_PREFETCH):
                    yield row["key"].encode(), _fact(row, query, source, number)
                    number += 1
        finally:
            await connection.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
        raise AuditError(f"the database of {query.service} cannot be read: {error or error!r}") from error


def _fact(row: Any, query: TableQuery, source: Source, number: int) -> Fact:
    message = query.model.model_validate({name: row[name] for name in query.model.model_fields})
    return Fact(source, 0, number, int(row["moment"].timestamp() * 1000), False, message.to_json())
