"""Products in the database: each change is one version, and one message that is kept with it."""

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from products_service.models import PRODUCTS
from runtime.database.outbox import Outbox
from runtime.database.pool import Database
from schemas import topics
from schemas.api import NewProduct, Product, ProductState
from schemas.identifiers import new_event_id
from schemas.messages import ProductEvent, ProductEventKind

log = logging.getLogger(__name__)


class Products:
    """The products of a database. All methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def create(self, new: NewProduct) -> tuple[Product, bool]:
        """The product of this code as it is kept, and whether it is new."""
        row = {**new.model_dump(), "version": 1, "state": ProductState.ACTIVE}
        making = insert(PRODUCTS).values(row).on_conflict_do_nothing().returning(PRODUCTS)
        async with self._database.transaction() as connection:
            made = (await connection.execute(making)).one_or_none()
            if made is not None:
                return await self._announced(connection, ProductEventKind.CREATED, _product(made)), True
            same = select(PRODUCTS).where(PRODUCTS.c.code == new.code)
            return _product((await connection.execute(same)).one()), False

    async def get(self, code: str) -> Product | None:
        """The product, withdrawn ones too."""
        async with self._database.transaction() as connection:
            row = (await connection.execute(select(PRODUCTS).where(PRODUCTS.c.code == code))).one_or_none()
        return None if row is None else _product(row)

    async def change(self, code: str, become: Callable[[Product], Product | None]) -> Product | None:
        """The product after what `become` makes of it, which nobody else changes meanwhile; `None` if there is none.

        Raises what `become` raises; then nothing is changed, nor if it returns `None`.
        """
        async with self._database.transaction() as connection:
            held = select(PRODUCTS).where(PRODUCTS.c.code == code).with_for_update()
            row = (await connection.execute(held)).one_or_none()
            if row is None:
                return None
            before = _product(row)
            after = become(before)
            if after is None:
                return before
            values = after.model_dump(exclude={"code", "changed_at"})
            # The moment of the change, not of the transaction: of two changes the later one has the later time.
            change = update(PRODUCTS).where(PRODUCTS.c.code == code)
            change = change.values(**values, changed_at=func.clock_timestamp())
            after = _product((await connection.execute(change.returning(PRODUCTS))).one())
            gone = after.state is ProductState.WITHDRAWN
            kind = ProductEventKind.WITHDRAWN if gone else ProductEventKind.UPDATED
            return await self._announced(connection, kind, after)

    async def _announced(self, connection: AsyncConnection, kind: ProductEventKind, product: Product) -> Product:
        event_id = new_event_id()
        said = product.model_dump(include={"code", "name", "price", "version"})
        event = ProductEvent(event_id=event_id, kind=kind, at=product.changed_at, **said)
        await self._outbox.add(connection, topics.PRODUCTS, event, event_id=event_id)
        log.info("product %s code=%s version=%d", kind.lower(), product.code, product.version)
        return product


def _product(row: Any) -> Product:
    return Product.model_validate(dict(row._mapping))  # noqa: SLF001 - SQLAlchemy's own
