"""Runs a service's Alembic migrations on a given connection, in its transaction; called by their `env.py`."""

from alembic import context
from sqlalchemy import MetaData


def run(models: MetaData) -> None:
    """Runs the current Alembic command. `models` is the schema that the migrations lead to."""
    context.configure(connection=context.config.attributes["connection"], target_metadata=models)
    with context.begin_transaction():
        context.run_migrations()
