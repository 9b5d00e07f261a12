"""Indexes the records that are about no order by their keys."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_PARTITIONS = """
    SELECT relname FROM pg_class JOIN pg_inherits ON inhrelid = oid WHERE inhparent = 'records'::regclass ORDER BY 1
"""


def upgrade() -> None:
    """Creates the index, partition by partition: the sink waits while that of the current month is built.

    The index of the whole table takes those of the partitions.
    """
    partitions = op.get_bind().scalars(sa.text(_PARTITIONS)).all()
    for table in (*partitions, "records"):
        name = "records_of_key" if table == "records" else f"{table}_of_key"
        op.create_index(name, table, ["log", "key", "produced_at"], postgresql_where=sa.text("order_id IS NULL"))


def downgrade() -> None:
    """Drops the index."""
    op.drop_index("records_of_key", "records")
