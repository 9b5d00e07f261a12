"""Stores products in the database: each change is one version, with one message in the outbox."""

import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from products_service.models import PRODUCTS
from runtime.database.outbox import Outbox
from runtime.database.pool import Database
from runtime.database.rows import insert_or_get
from schemas import topics
from schemas.api import NewProduct, Product, ProductState
from schemas.identifiers import new_event_id
from schemas.messages import ProductEvent, ProductEventKind

log = logging.getLogger(__name__)


class ProductStore:
    """Products in a database. All methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def create(self, new: NewProduct) -> tuple[Product, bool]:
        """Stores a product, unless its code exists. Returns the stored product, and whether it is new."""
        row = {**new.model_dump(), "version": 1, "state": ProductState.ACTIVE}
        async with self._database.transaction() as connection:
            stored, is_new = await insert_or_get(connection, PRODUCTS, row, unique=("code",))
            product = _product(stored)
            if is_new:
                await self._add_to_outbox(connection, ProductEventKind.CREATED, product)
            return product, is_new

    async def get(self, code: str) -> Product | None:
        """Reads a product, also a withdrawn one."""
        async with self._database.transaction() as connection:
            row = (await connection.execute(select(PRODUCTS).where(PRODUCTS.c.code == code))).one_or_none()
        return None if row is None else _product(row)

    async def change(self, code: str, transition: Callable[[Product], Product | None]) -> Product | None:
        """Applies `transition` to the locked row of a product; returns the product, `None` if there is none.

        The product stays as it is if `transition` returns `None` or raises; its exceptions are raised here.
        """
        async with self._database.transaction() as connection:
            locked = select(PRODUCTS).where(PRODUCTS.c.code == code).with_for_update()
            row = (await connection.execute(locked)).one_or_none()
            if row is None:
                return None
            before = _product(row)
            after = transition(before)
            if after is None:
                return before
            values = after.model_dump(exclude={"code", "changed_at"})
            # Time of the change, not of the transaction: a later change must have a later time.
            statement = update(PRODUCTS).where(PRODUCTS.c.code == code)
            statement = statement.values(**values, changed_at=func.clock_timestamp())
            after = _product((await connection.execute(statement.returning(PRODUCTS))).one())
            withdrawn = after.state is ProductState.WITHDRAWN
            kind = ProductEventKind.WITHDRAWN if withdrawn else ProductEventKind.UPDATED
            return await self._add_to_outbox(connection, kind, after)

    async def _add_to_outbox(self, connection: AsyncConnection, kind: ProductEventKind, product: Product) -> Product:
        event_id = new_event_id()
        content = product.model_dump(include={"code", "name", "price", "version"})
        event = ProductEvent(event_id=event_id, kind=kind, at=product.changed_at, **content)
        await self._outbox.add(connection, topics.PRODUCTS, event, event_id=event_id)
        log.info("product %s code=%s version=%d", kind.lower(), product.code, product.version)
        return product


def _product(row: Any) -> Product:
    return Product.model_validate(row, from_attributes=True)
