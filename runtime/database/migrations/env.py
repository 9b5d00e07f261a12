"""Alembic environment of all services: migrates on the connection of `pool.alembic_config`."""

from typing import Any

from alembic import context

models = context.config.attributes["models"]
partitioned = [table.name for table in models.sorted_tables if table.dialect_options["postgresql"]["partition_by"]]


def is_compared(_: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
    """Whether an object must be as in the models. Partitions, named after their table, are made at run time."""
    return kind != "table" or not any((name or "").startswith(f"{table}_") for table in partitioned)


context.configure(
    connection=context.config.attributes["connection"], target_metadata=models, include_object=is_compared
)
with context.begin_transaction():
    context.run_migrations()
