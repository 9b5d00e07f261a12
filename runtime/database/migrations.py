"""What `env.py` of a service's migrations does: runs them on the connection it is given, in its transaction."""

from alembic import context
from sqlalchemy import MetaData


def run(models: MetaData) -> None:
    """Runs what was asked of Alembic; `models` is what the migrations are to lead to."""
    context.configure(connection=context.config.attributes["connection"], target_metadata=models)
    with context.begin_transaction():
        context.run_migrations()
