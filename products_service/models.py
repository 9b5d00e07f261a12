"""Database model of the product service. The migrations lead to it."""

from sqlalchemy import BigInteger, Column, DateTime, MetaData, Numeric, Table, Text, func

from runtime.database.outbox import outbox_table

MODELS = MetaData()

PRODUCTS = Table(
    "products",
    MODELS,
    Column("code", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("price", Numeric(15, 4), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)
"""One row per code. A withdrawn product keeps its row, so its versions continue."""

OUTBOX = outbox_table(MODELS)
