"""Creates products and outbox."""

import sqlalchemy as sa
from alembic import op

from runtime.database.migrations.steps import create_outbox

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates both tables."""
    op.create_table(
        "products",
        sa.Column("code", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("price", sa.Numeric(15, 4), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
    )
    create_outbox()


def downgrade() -> None:
    """Drops both tables."""
    op.drop_table("outbox")
    op.drop_table("products")
