"""`orders maintain`, and the output of `orders audit --history`."""

from typing import TYPE_CHECKING

import click

from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import perform
from ecosystem.clients.wording import counted
from runtime.common.clock import utc_now
from runtime.common.settings import Settings
from runtime.errors import DatabaseNotConfigured, DatabaseUnavailable

if TYPE_CHECKING:
    from rich.console import Console

    from ecosystem.audit.history import HistoryReport

_EXPLAINED = {
    "missing": "are in a topic, and not in the history although it is past them",
    "twice": "are in the history twice",
    "differs": "have another key, value, headers or time in the history",
    "foreign": "are in the history, and not in their topic",
}


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing")
def maintain(dry_run: bool) -> None:
    """Make and drop monthly partitions of the history.

    Makes those of the next months, drops those past the retention, and renews statistics of tables that autovacuum
    leaves out. Workers of the history do the same every hour. Needs HISTORY_DATABASE_URL, and
    HISTORY_RETENTION_MONTHS as the workers have it.

    \b
    orders maintain --dry-run
    """
    settings = discovery.settings(None)
    steps = perform(_maintain(settings, dry_run), expected=(DatabaseNotConfigured, DatabaseUnavailable))
    for step in steps or ["nothing to do"]:
        click.echo(f"{'would ' if dry_run and steps else ''}{step}")


async def _maintain(settings: Settings, dry_run: bool) -> list[str]:
    from history_service.maintenance import Maintenance  # imports SQLAlchemy, which is slow: not for `--help`
    from history_service.settings import HistorySettings
    from runtime.database.pool import Database

    own = settings.of(HistorySettings)
    database = Database("history", own.history_database_url, "history_service:migrations", settings)
    maintenance = Maintenance(database, own.history_retention_months, utc_now)
    async with database.open():
        await database.ready(settings.database_timeout_s)
        steps = await maintenance.plan()
        if not dry_run:
            await maintenance.run()
    return steps


def print_history(report: "HistoryReport", console: "Console") -> None:
    """Prints the comparison of the history with the topics."""
    console.print(f"{counted(report.compared, 'record')} compared, {report.waiting:,} not read yet", markup=False)
    if report.expired:
        console.print(f"{report.expired:,} older than the retention of the history", markup=False)
    for difference, count in report.counts.items():
        console.print(f"{counted(count, 'record')} {_EXPLAINED[difference.value]}:", style="red", markup=False)
        for finding in report.findings:
            if finding.difference is difference:
                console.print(f"  {finding.topic} {finding.partition}@{finding.offset}", markup=False)
    if report.ok:
        console.print("The history has every record once, as it was written.", style="green", markup=False)
