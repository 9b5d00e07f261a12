"""Tables of a sink, in the database of its service: which logs it has read, and how far.

They are written in the transaction of the rows (`runtime/sink/postgres.py`), so that every record is stored
once: docs/decisions/0041-store-the-offsets-of-a-sink-with-its-rows.md
"""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
)


def sink_tables(models: MetaData) -> tuple[Table, Table]:
    """The tables `sink_logs` and `sink_offsets`, as part of a service's models. The service's migrations create them.

    `sink_logs` has a row for each log that was read. A topic that is made anew, or truncated, has another one, as its
    offsets begin again. `id` is a short name of the log in the rows of the service.

    `sink_offsets` has a row for each partition: the log that is read now, the next offset to read in it, where the log
    ended for committed readers when this was last known (`end_offset`, at `checked_at`), and when the last stored
    record was produced. A partition whose `next_offset` is its `end_offset` was complete at `checked_at`.
    """
    logs = Table(
        "sink_logs",
        models,
        Column("id", Integer, Identity(always=True), primary_key=True),
        Column("topic", Text, nullable=False),
        Column("log_id", Text, nullable=False),
        Column("cut", Integer, nullable=False),
        Column("first_read_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        UniqueConstraint("topic", "log_id", "cut", name="sink_logs_once"),
    )
    offsets = Table(
        "sink_offsets",
        models,
        Column("topic", Text, primary_key=True),
        Column("partition", Integer, primary_key=True),
        Column("log", Integer, ForeignKey(logs.c.id), nullable=False),
        Column("next_offset", BigInteger, nullable=False),
        Column("end_offset", BigInteger, nullable=False),
        Column("last_produced_at", DateTime(timezone=True)),
        Column("checked_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    )
    return logs, offsets
