"""Tables of the history: every record of every topic, and the inputs with their time."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB

from runtime.sink.tables import sink_tables

MODELS = MetaData()

RECORDS = Table(
    "records",
    MODELS,
    Column("log", Integer, nullable=False),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("id", Text),
    Column("produced_at", DateTime(timezone=True), nullable=False),
    Column("stored_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("headers", ARRAY(LargeBinary, dimensions=1), nullable=False),
    PrimaryKeyConstraint("log", "partition", "offset"),
    Index("records_of_input", "id", "topic"),
    Index("records_of_topic", "topic", "partition", "offset"),
)
"""One row per record, byte for byte. `log` is another one for a topic that was made anew. `id` is the key as text, null
if that is not possible. `headers`: name, value, name, value."""

INPUTS1 = Table(
    "inputs1",
    MODELS,
    Column("id", Text, primary_key=True),
    Column("made_at", DateTime(timezone=True), nullable=False),
    Column("numbers", JSONB, nullable=False),
)
"""One row per input: its first record in the topic `start`, with the time of that record."""

SINK_LOGS, SINK_OFFSETS = sink_tables(MODELS)
