"""`orders what-if`: how orders would have ended under other settings."""

import os
import sys
import time
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import TIME, Whole, bootstrap_option, perform, temp_option


@click.command()
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting to change, such as FRAUD_LIMIT=1500; may be repeated  [default: none: check the replay]",
)
@click.option("--from", "from_", type=TIME, help="Orders posted from then on, or since 12h ago  [default: all]")
@click.option("--to", type=TIME, help="Orders posted before  [default: all]")
@click.option(
    "--history",
    metavar="URL",
    envvar="HISTORY_DATABASE_URL",
    help="Database of the history service [env: HISTORY_DATABASE_URL; default: the topics are read]",
)
@click.option("--topics", is_flag=True, help="Read the topics, even if HISTORY_DATABASE_URL is set")
@click.option("--processes", type=Whole(1, 256), help="Processes that judge  [default: one per CPU]")
@click.option("--limit", type=Whole(1), default=20, show_default=True, help="Orders that are listed of each kind")
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Draw the difference, as .svg, .png or .pdf; needs `pip install 'faust-orders[plot]'`",
)
@click.option("--json", "json_", is_flag=True, help="Print one JSON object, and no progress")
@temp_option("the topics")
@bootstrap_option
def what_if(
    sets: tuple[str, ...],
    from_: datetime | None,
    to: datetime | None,
    history: str | None,
    topics: bool,
    processes: int | None,
    limit: int,
    plot_file: Path | None,
    json_: bool,
    temp: Path | None,
    bootstrap: str | None,
) -> None:
    """Show how orders would have ended under other settings.

    The services' own processors run over the history in memory, in virtual time, with the settings of the environment
    and with those of `--set`. Shown are the orders that would have ended otherwise, by reason, with their value.
    Nothing is written to any topic.

    The environment must have the settings that were in force: FRAUD_LIMIT, VALIDATION_DEADLINE_S, REQUIRED_CHECKS and
    so on. Under them the replay gives what is recorded. Orders for which it does not are shown apart as undecided by
    timing, because no record tells in which order a service read its inputs. Without `--set` nothing else is shown.

    The state before `--from` is what the records before it make of it, so the history is replayed from its beginning.
    An order has a day after `--to` in which to be shipped or cancelled. Clients act as they did: nobody pays an order
    that had failed.

    Exit code 0: judged. 1: without `--set`, some orders are undecided. 2: it could not be done.

    \b
    orders what-if --set FRAUD_LIMIT=1500
    orders what-if --set VALIDATION_DEADLINE_S=5 --from 2026-07-01 --json
    orders what-if --set UNKNOWN_PRODUCTS=pass --plot difference.svg
    orders what-if --topics               check the replay against the topics
    """
    from ecosystem.what_if import changes, plot, report, run, sources

    try:
        changed = changes.parse(sets)
    except changes.InvalidChange as error:
        raise click.BadParameter(str(error), param_hint="--set") from error
    if from_ and to and from_ >= to:
        raise click.BadParameter("it must be before --to", param_hint="--from")
    if plot_file is not None:
        _require_plot(plot_file)
    settings = discovery.settings(bootstrap)
    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with (
        TemporaryDirectory(prefix="what-if-", dir=temp) as folder,
        Progress(*columns, console=errors, transient=True, disable=json_ or not errors.is_terminal) as bar,
    ):
        task = bar.add_task("reading", total=None)
        question = run.Question(Path(folder), 0, changed, *run.range_ms(from_, to), limit)
        wanted = run.topics()
        reading = (
            sources.spool_topics(settings, wanted, question.folder, question.until_ms, lambda _: None)
            if topics or not (history := history or discovery.database_url(discovery.HISTORY))
            else sources.spool_history(history, wanted, question.folder, question.until_ms, lambda _: None)
        )
        partitions, records = perform(
            reading, bootstrap=bootstrap, expected=(sources.NoRecords, *sources.DATABASE_ERRORS), exit_code=2
        )
        count = processes or os.cpu_count() or 1
        bar.update(task, description="judging", total=records * count)
        started = time.perf_counter()
        try:
            found = run.judge_in_processes(
                question.on(partitions), count, lambda read: bar.update(task, completed=read)
            )
        except run.NotDivisible as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(2)
        seconds = time.perf_counter() - started
    currency = discovery.currency()
    if plot_file is not None:
        plot.plot(found, plot_file, ", ".join(sets) or "settings of the environment", currency)
    if json_:
        click.echo(report.as_json(found, changed, currency, seconds))
    else:
        report.print_report(found, Console(highlight=False), changed, currency, seconds)
    sys.exit(1 if not changed and found.undecided.orders else 0)


def _require_plot(file: Path) -> None:
    """Raises what tells that a plot cannot be drawn, before the history is read."""
    from ecosystem.what_if import plot

    if file.suffix.lower().removeprefix(".") not in plot.FORMATS:
        endings = ", ".join(f".{ending}" for ending in plot.FORMATS)
        raise click.BadParameter(f"{file.name} must end in one of {endings}", param_hint="--plot")
    try:
        plot.figure_class()
    except plot.PlotUnavailable as error:
        raise click.BadParameter(str(error), param_hint="--plot") from error
