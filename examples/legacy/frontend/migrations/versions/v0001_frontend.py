"""Creates the tables of the sink, and those of the frontend where they do not exist."""

from alembic import op

from examples.legacy.frontend.models import CUSTOMERS, ORDERS, SINK_LOGS, SINK_OFFSETS

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The tables of the frontend exist already where the legacy system has made them."""
    for table in (ORDERS, CUSTOMERS, SINK_LOGS, SINK_OFFSETS):
        table.create(op.get_bind(), checkfirst=True)


def downgrade() -> None:
    """Drops the tables of the sink; the others belong to the legacy system."""
    for table in (SINK_OFFSETS, SINK_LOGS):
        table.drop(op.get_bind())
