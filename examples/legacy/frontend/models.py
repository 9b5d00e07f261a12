"""Tables of the frontend database: those of the legacy frontend, and those of the sink."""

from sqlalchemy import BigInteger, Column, DateTime, MetaData, Numeric, String, Table, Text

from runtime.sink.tables import sink_tables

MODELS = MetaData()

ORDERS = Table(
    "frontend_orders",
    MODELS,
    Column("order_no", Text, primary_key=True),
    Column("customer_no", BigInteger, nullable=False),
    Column("status", String(1), nullable=False),
    Column("article", Text, nullable=False),
    Column("pieces", BigInteger, nullable=False),
    Column("amount", Numeric(38, 4), nullable=False),
    Column("remark", Text),
    Column("changed_at", DateTime(timezone=True), nullable=False),
)
"""`status`: N (new), V (validated), F (failed), S (shipped), C (cancelled)."""

CUSTOMERS = Table(
    "frontend_customers",
    MODELS,
    Column("customer_no", BigInteger, primary_key=True),
    Column("name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("class", String(1), nullable=False),
)
"""`class`: P, G, S or B, from platinum to bronze; B for any other level."""

SINK_LOGS, SINK_OFFSETS = sink_tables(MODELS)
