"""Runs a service's Alembic migrations on a given connection, in its transaction; called by their `env.py`."""

from typing import Any

from alembic import context
from sqlalchemy import MetaData


def run(models: MetaData, partitioned: str | None = None) -> None:
    """Runs the current Alembic command. `models` is the schema that the migrations lead to.

    `partitioned` is a table whose partitions, named after it, are made at run time: they are not compared.
    """

    def is_compared(_: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
        return not (partitioned and kind == "table" and (name or "").startswith(f"{partitioned}_"))

    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=models, include_object=is_compared)
    with context.begin_transaction():
        context.run_migrations()
