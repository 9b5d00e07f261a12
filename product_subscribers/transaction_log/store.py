"""Stores the transaction log in the database, each event once."""

import uuid

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from product_subscribers.transaction_log.models import PRODUCT_LOG
from runtime.database.pool import Database
from runtime.errors import SideEffectRejected
from schemas.messages import ProductEvent

MAX_SHOWN = 1000
"""Events shown per product, the latest."""


class ProductLogStore:
    """Transaction log in a database. All methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, event_id: str, event: ProductEvent) -> None:
        """Side effect of a change. Idempotent by event id."""
        try:
            id_ = uuid.UUID(event_id)
        except ValueError:
            raise SideEffectRejected("the event id is no UUID") from None
        row = {**event.model_dump(), "event_id": id_}
        async with self._database.transaction() as connection:
            await connection.execute(insert(PRODUCT_LOG).values(row).on_conflict_do_nothing())

    async def latest(self, code: str) -> tuple[ProductEvent, ...]:
        """Reads the latest changes of a product, by version."""
        latest = select(PRODUCT_LOG).where(PRODUCT_LOG.c.code == code)
        latest = latest.order_by(PRODUCT_LOG.c.version.desc(), PRODUCT_LOG.c.id.desc()).limit(MAX_SHOWN)
        async with self._database.transaction() as connection:
            rows = (await connection.execute(latest)).mappings().all()
        return tuple(ProductEvent.model_validate({**row, "event_id": str(row["event_id"])}) for row in reversed(rows))
