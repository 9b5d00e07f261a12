"""`orders topics`: list the catalogue of topics."""

import click
from rich.console import Console
from rich.table import Table

from schemas.topics import CATALOGUE, Retention


@click.command()
def topics() -> None:
    """List the topics, with key, value, writer and retention.

    Each has a topic `<topic>.dead-letters` for messages that could not be processed.
    """
    table = Table("topic", "key", "value", "only writer", "kept", box=None, pad_edge=False)
    for topic in CATALOGUE:
        key, retention = topic.key_field or "several fields", _retention(topic.retention)
        table.add_row(topic.name, key, topic.model.__name__, topic.writer, retention)
    console = Console()
    console.print(table, soft_wrap=not console.is_terminal)


def _retention(retention: Retention) -> str:
    if retention.compacted:
        return "last of each key"
    return "for ever" if retention.duration is None else f"{retention.duration.days} days"
