"""Creates check-ins and outbox."""

import sqlalchemy as sa
from alembic import op

from runtime.database.migrations.steps import create_outbox

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates both tables."""
    op.create_table(
        "check_ins",
        sa.Column("event_id", sa.Uuid, primary_key=True),
        sa.Column("order_no", sa.Text, nullable=False),
        sa.Column("internet_no", sa.Text, nullable=False),
        sa.Column("staff_code", sa.Text, nullable=False),
        sa.Column("job_status", sa.Text, nullable=False),
        sa.Column("checkin_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("checkin_latitude", sa.Double, nullable=False),
        sa.Column("checkin_longitude", sa.Double, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.UniqueConstraint(
            "order_no", "internet_no", "staff_code", "job_status", "checkin_date", name="check_ins_of_one_moment"
        ),
    )
    create_outbox()


def downgrade() -> None:
    """Drops both tables."""
    op.drop_table("outbox")
    op.drop_table("check_ins")
