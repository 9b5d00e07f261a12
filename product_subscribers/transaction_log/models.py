"""Database model of the transaction log. The migrations lead to it."""

from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, MetaData, Numeric, Table, Text, Uuid, func

MODELS = MetaData()

PRODUCT_LOG = Table(
    "product_log",
    MODELS,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Uuid, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("price", Numeric(15, 4), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)
"""One row per event. Two events that claim the same version both belong in the log.

A trigger rejects UPDATE, DELETE and TRUNCATE.
"""

Index("product_log_of_code", PRODUCT_LOG.c.code, PRODUCT_LOG.c.version)
