"""Creates records, orders, their words, and the tables of the sink."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

# In PL/pgSQL, as a function in SQL takes three times as long. An index stores each trigram of a word once.
_TRIGRAMS = """
    CREATE FUNCTION history_trigrams(word text) RETURNS text[] LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    DECLARE
        trigrams text[] := '{}';
    BEGIN
        FOR at IN 1..length(word) - 2 LOOP
            trigrams[at] := substr(word, at, 3);
        END LOOP;
        RETURN trigrams;
    END $$
"""


def _time(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    """Creates the tables and the function of the index for parts of texts."""
    op.create_table(
        "sink_logs",
        sa.Column("id", sa.Integer, sa.Identity(always=True), primary_key=True),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("log_id", sa.Text, nullable=False),
        sa.Column("cut", sa.Integer, nullable=False),
        sa.Column("first_read_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.UniqueConstraint("topic", "log_id", "cut", name="sink_logs_once"),
    )
    op.create_table(
        "sink_offsets",
        sa.Column("topic", sa.Text, primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True),
        sa.Column("log", sa.Integer, sa.ForeignKey("sink_logs.id"), nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.Column("end_offset", sa.BigInteger, nullable=False),
        _time("last_produced_at"),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
    )
    op.create_table(
        "records",
        _time("produced_at", nullable=False),
        _time("stored_at", nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("log", sa.Integer, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("order_id", sa.Text),
        sa.Column("key", sa.LargeBinary),
        sa.Column("value", sa.LargeBinary),
        sa.Column("headers", postgresql.ARRAY(sa.LargeBinary, dimensions=1)),
        sa.PrimaryKeyConstraint("log", "partition", "offset", "produced_at", name="records_pkey"),
        postgresql_partition_by="RANGE (produced_at)",
    )
    op.create_index(
        "records_of_order", "records", ["order_id", "produced_at"], postgresql_where=sa.text("order_id IS NOT NULL")
    )
    op.execute("CREATE TABLE records_default PARTITION OF records DEFAULT")
    op.create_table(
        "orders",
        sa.Column("id", sa.Text, primary_key=True),
        _time("created_at"),
        _time("updated_at", nullable=False),
        sa.Column("customer_id", sa.BigInteger),
        sa.Column("quantity", sa.BigInteger),
        sa.Column("state_offset", sa.BigInteger),
        sa.Column("state_log", sa.Integer),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state_rank", sa.SmallInteger),
        sa.Column("state", sa.Text),
        sa.Column("product", sa.Text),
        sa.Column("price", sa.Numeric),
        sa.Column("value", sa.Numeric),
        sa.Column("reasons", postgresql.ARRAY(sa.Text, dimensions=1)),
        sa.Column("failed_checks", postgresql.ARRAY(sa.Text, dimensions=1)),
        _time("posted_at"),
        _time("judged_at"),
        _time("validated_at"),
        _time("failed_at"),
        _time("paid_at"),
        _time("checked_in_at"),
        _time("fulfilled_at"),
        _time("shipped_at"),
        _time("cancellation_requested_at"),
        _time("cancelled_at"),
        _time("refunded_at"),
        _time("enriched_at"),
        postgresql_with={"fillfactor": "80"},
    )
    for name, columns in (
        ("orders_by_time", []),
        ("orders_by_state", ["state"]),
        ("orders_by_customer", ["customer_id"]),
        ("orders_by_product", ["product"]),
    ):
        listed = sa.text("created_at IS NOT NULL")
        op.create_index(name, "orders", [*columns, "created_at", "id"], postgresql_where=listed)
    op.create_table(
        "order_words",
        _time("produced_at", nullable=False),
        sa.Column("order_id", sa.Text, nullable=False),
        sa.Column("word", sa.Text, nullable=False),
    )
    op.execute(_TRIGRAMS)
    op.execute("CREATE INDEX order_words_trigrams ON order_words USING gin (history_trigrams(word))")


def downgrade() -> None:
    """Drops all of it, with all partitions."""
    for table in ("order_words", "orders", "records", "sink_offsets", "sink_logs"):
        op.drop_table(table)
    op.execute("DROP FUNCTION history_trigrams(text)")
