"""Indexes the words of an order."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the index."""
    op.create_index("order_words_of_order", "order_words", ["order_id"])


def downgrade() -> None:
    """Drops the index."""
    op.drop_index("order_words_of_order", "order_words")
