"""Reading the check-in service's database: one look at it, whatever goes on there, and nothing is written."""

from collections.abc import AsyncIterator

import asyncpg

from ecosystem.audit.facts import Fact, Source
from ecosystem.audit.report import AuditError
from ecosystem.audit.rows import CheckinRow

_TIMEOUT_S = 10.0
_AT_ONCE = 1000
_ROWS = """
    SELECT check_ins.event_id::text, order_no, internet_no, staff_code, job_status, checkin_latitude,
        checkin_longitude, checkin_date, status, check_ins.created_at,
        outbox.event_id IS NULL OR published_at IS NOT NULL AS published
    FROM check_ins LEFT JOIN outbox ON outbox.event_id = check_ins.event_id
"""


async def check_ins(url: str, source: Source) -> AsyncIterator[tuple[bytes, Fact]]:
    """Every check-in under its order. Raises `AuditError` if the database cannot be read."""
    try:
        connection = await asyncpg.connect(url, timeout=_TIMEOUT_S)
        try:
            number = 0
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                async for row in connection.cursor(_ROWS, prefetch=_AT_ONCE):
                    at_ms = int(row["created_at"].timestamp() * 1000)
                    kept = CheckinRow(**{name: row[name] for name in CheckinRow.model_fields})
                    yield kept.order_no.encode(), Fact(source, 0, number, at_ms, False, kept.to_json())
                    number += 1
        finally:
            await connection.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
        raise AuditError(f"the database of the check-in service cannot be read: {error or error!r}") from error
