"""Creates the log, and the trigger that makes it append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates table and trigger."""
    op.create_table(
        "product_log",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("event_id", sa.Uuid, nullable=False, unique=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("price", sa.Numeric(15, 4), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
    )
    op.create_index("product_log_of_code", "product_log", ["code", "version"])
    op.execute("""
        CREATE FUNCTION product_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'product_log is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON product_log
        FOR EACH STATEMENT EXECUTE FUNCTION product_log_is_append_only()
    """)
    # ALWAYS: also for changes applied by logical replication.
    op.execute("ALTER TABLE product_log ENABLE ALWAYS TRIGGER append_only")


def downgrade() -> None:
    """Drops table and trigger."""
    op.drop_table("product_log")
    op.execute("DROP FUNCTION product_log_is_append_only()")
