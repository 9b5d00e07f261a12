"""Database model of the check-in service. The migrations lead to it."""

from sqlalchemy import Column, DateTime, Double, MetaData, Table, Text, UniqueConstraint, Uuid, func

from runtime.database.outbox import outbox_table

MODELS = MetaData()

CHECK_INS = Table(
    "check_ins",
    MODELS,
    Column("event_id", Uuid, primary_key=True),
    Column("order_no", Text, nullable=False),
    Column("internet_no", Text, nullable=False),
    Column("staff_code", Text, nullable=False),
    Column("job_status", Text, nullable=False),
    Column("checkin_date", DateTime(timezone=True), nullable=False),
    Column("checkin_latitude", Double, nullable=False),
    Column("checkin_longitude", Double, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    UniqueConstraint(
        "order_no", "internet_no", "staff_code", "job_status", "checkin_date", name="check_ins_of_one_moment"
    ),
)
"""One row per check-in. The same report (all fields but the coordinates) is the same check-in."""

OUTBOX = outbox_table(MODELS)
