"""`orders backlog`: what each service has not processed yet, in records and in seconds."""

import asyncio
import json
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from aiokafka.errors import KafkaError
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ecosystem import services
from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import Real, bootstrap_option, perform
from ecosystem.cli.stopping import StopRequest, run_until_signal
from ecosystem.clients.readable import printable
from runtime.common.clock import utc_now

if TYPE_CHECKING:
    from ecosystem.clients.backlog.lags import Backlog, Lag


@click.command()
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C")
@click.option(
    "--every", type=Real(0.2, 3600), default=2.0, show_default=True, metavar="SECONDS", help="Pause with --watch"
)
@click.option("--all", "all_", is_flag=True, help="Show also partitions without backlog")
@click.option("--json", "json_", is_flag=True, help="Print all partitions, one JSON object per line")
@bootstrap_option
def backlog(watch: bool, every: float, all_: bool, json_: bool, bootstrap: str | None) -> None:
    """Show what each service has not processed, and its age.

    A line for each service and topic, and below it one for each partition with a backlog. The age is the time since
    the oldest unprocessed record was written. Services count one by one, composed or not, and whether they run or not.
    Offsets of transaction markers between records count as records. Groups of other programs that read topics of the
    catalogue are shown under their own names. The position of the history is in its database: HISTORY_DATABASE_URL.

    \b
    orders backlog
    orders backlog --watch
    orders backlog --json | jq 'select(.seconds > 60)'
    """
    from ecosystem.clients.backlog.reading import read_backlog

    settings = discovery.settings(bootstrap)
    definitions = services.build_all(settings)
    console = Console(highlight=False)

    async def show(stop: StopRequest) -> None:
        found: Backlog | None = await read_backlog(settings, definitions)
        live = Live(console=console, auto_refresh=False) if watch and not json_ and console.is_terminal else None
        with live or nullcontext():
            while found is not None:
                if json_:
                    _print_json(found)
                elif live is not None:
                    live.update(_rendered(found, all_), refresh=True)
                else:
                    console.print(_rendered(found, all_))
                found = await next_(stop) if watch else None

    async def next_(stop: StopRequest) -> "Backlog | None":
        """Reads the backlog again after a pause; `None` once the command is stopped."""
        while not await _stopped(stop, every):
            try:
                return await read_backlog(settings, definitions)
            except (KafkaError, OSError) as error:
                click.echo(f"Kafka does not answer, retried: {error}", err=True)
        return None

    perform(run_until_signal(show), bootstrap=bootstrap)


async def _stopped(stop: StopRequest, within_s: float) -> bool:
    try:
        await asyncio.wait_for(stop.received.wait(), within_s)
    except TimeoutError:
        return False
    return True


def _print_json(found: "Backlog") -> None:
    at = utc_now().isoformat(timespec="milliseconds")
    for lag in found.lags:
        click.echo(json.dumps({"at": at, **asdict(lag), "records": lag.records}))


def _rendered(found: "Backlog", all_: bool) -> Group:
    """The tables and lines that show a backlog."""
    from ecosystem.clients.backlog.lags import oldest_s

    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=True)
    table.add_column("service", "in all")
    table.add_column("topic", overflow="fold")
    table.add_column("partition", justify="right")
    table.add_column("records", str(sum(lag.records for lag in found.lags)), justify="right")
    table.add_column("oldest", _age(oldest_s(found.lags)), justify="right")
    by_topic: dict[tuple[str, str], list[Lag]] = {}
    for lag in found.lags:
        by_topic.setdefault((lag.service, lag.topic), []).append(lag)
    for (service, topic), lags in by_topic.items():
        records = sum(lag.records for lag in lags)
        style = "yellow" if records else "dim"
        age = _age(oldest_s(lags))
        table.add_row(printable(service), printable(topic), "all", str(records), age, style=style)
        for lag in lags:
            if all_ or lag.records:
                table.add_row("", "", str(lag.partition), str(lag.records), _age(lag.seconds))
    lines: list[Text | Table] = [Text(f"{utc_now():%Y-%m-%d %H:%M:%S} UTC", "dim"), table]
    if not found.lags:
        lines[1:] = [Text("No service has read a topic yet.")]
    if found.never_started:
        lines.append(Text(f"Never started: {', '.join(found.never_started)}", "dim"))
    lines += [Text(f"{name} is unknown: {reason}", "dim") for name, reason in found.unknown.items()]
    return Group(*lines)


def _age(seconds: float | None) -> str:
    """An age for a table.

    >>> _age(0.0), _age(0.04), _age(75.0), _age(7260.0), _age(200_000.0), _age(None)
    ('0 s', '0.0 s', '1 m 15 s', '2 h 1 m', '2 d 7 h', 'unknown')
    """
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds else "0 s"
    for unit, big, size, lower in (("m", 3600, 60, "s"), ("h", 86_400, 3600, "m"), ("d", float("inf"), 86_400, "h")):
        if seconds < big:
            part = {"s": 1, "m": 60, "h": 3600}[lower]
            return f"{seconds // size:.0f} {unit} {seconds % size // part:.0f} {lower}"
    raise AssertionError(seconds)
