"""`orders timings`: how long orders took from stage to stage."""

from datetime import datetime

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ecosystem.cli.commands.shared import TIME, perform, service_url_option
from ecosystem.clients.api import HistoryApi
from ecosystem.clients.wording import counted
from schemas.history import Timings


@click.command()
@click.option("--from", "from_", type=TIME, help="Orders created from then on, or since 12h ago  [default: all]")
@click.option("--to", type=TIME, help="Orders created before  [default: all]")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object")
@service_url_option("history")
def timings(from_: datetime | None, to: datetime | None, json_: bool, url: str) -> None:
    """Show how long orders took from stage to stage.

    The history service computes percentiles of all orders of the range. A stage is reached when its first record is
    produced; each order counts in every step of which it has reached both ends.

    \b
    orders timings
    orders timings --from 2026-07-01 --to 2026-07-02T12:00:00Z --json
    """
    if from_ and to and from_ >= to:
        raise click.BadParameter("it must be before --to", param_hint="--from")

    async def show() -> None:
        async with HistoryApi(url) as api:
            found = await api.timings(from_, to)
        if json_:
            click.echo(found.to_json().decode())
        else:
            _print(Console(highlight=False), found)

    perform(show(), url)


def _print(console: Console, found: Timings) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("from")
    table.add_column("to")
    for name in ("orders", "p50", "p90", "p99", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for step in found.steps:
        times = (step.p50_seconds, step.p90_seconds, step.p99_seconds, step.max_seconds)
        table.add_row(step.start, step.end, str(step.count), *map(_seconds, times))
    console.print(counted(found.orders, "order"))
    if found.steps:
        console.print(table)
    if found.lag_seconds is None or found.lag_seconds > 0:
        behind = "an unknown time" if found.lag_seconds is None else f"up to {found.lag_seconds:.0f} s"
        console.print(Text(f"The history is behind by {behind}.", "yellow"))


def _seconds(seconds: float) -> str:
    """A duration with three significant digits at most below an hour.

    >>> _seconds(0.01234), _seconds(1.5), _seconds(75.25), _seconds(7260)
    ('12 ms', '1.50 s', '75 s', '2.0 h')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 3600:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h"
