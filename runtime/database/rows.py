"""Statements that several services run on their tables."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Row, Table, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection


async def insert_or_get(
    connection: AsyncConnection, table: Table, row: Mapping[str, Any], unique: Iterable[str]
) -> tuple[Row[Any], bool]:
    """Inserts a row, unless one has the same values in the `unique` columns.

    Returns the stored row, and whether it is new.
    """
    statement = insert(table).values(row).on_conflict_do_nothing().returning(table)
    inserted = (await connection.execute(statement)).one_or_none()
    if inserted is not None:
        return inserted, True
    existing = select(table).where(*(table.c[name] == row[name] for name in unique))
    return (await connection.execute(existing)).one(), False
