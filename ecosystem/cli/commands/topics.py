"""`orders topics`: the catalogue."""

import click
from rich.console import Console
from rich.table import Table

from schemas.topics import CATALOGUE, Retention


@click.command()
def topics() -> None:
    """List the topics, with key, value, writer and retention.

    Each has a companion `<topic>.dead-letters`, which takes what could not be read.
    """
    table = Table("topic", "key", "value", "only writer", "kept", box=None, pad_edge=False)
    for topic in CATALOGUE:
        table.add_row(
            topic.name, topic.key_field or "several fields", topic.model.__name__, topic.writer, _kept(topic.retention)
        )
    console = Console()
    console.print(table, soft_wrap=not console.is_terminal)


def _kept(kept: Retention) -> str:
    if kept.compacted:
        return "last of each key"
    return "for ever" if kept.duration is None else f"{kept.duration.days} days"
