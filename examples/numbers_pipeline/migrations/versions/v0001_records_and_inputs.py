"""Creates the tables of the history."""

from alembic import op

from examples.numbers_pipeline.models import MODELS

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates all tables."""
    MODELS.create_all(op.get_bind())


def downgrade() -> None:
    """Drops all tables."""
    MODELS.drop_all(op.get_bind())
