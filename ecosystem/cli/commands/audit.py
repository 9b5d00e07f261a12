"""`orders audit`: verify from the topics that every promise was kept."""

import json
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import TIME, Real, Whole, bootstrap_option, perform
from runtime.common.settings import Guarantee, Settings

if TYPE_CHECKING:
    from ecosystem.audit.history import HistoryReport


@click.command()
@click.option("--since", type=TIME, help="Audit orders posted from then on, or since 12h ago  [default: all]")
@click.option(
    "--guarantee",
    type=click.Choice([g.value for g in Guarantee]),
    help="Guarantee to audit against  [default: PROCESSING_GUARANTEE, exactly_once]",
)
@click.option(
    "--grace",
    type=Real(0),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds after which a missing result is a violation; before, it counts as open",
)
@click.option("--limit", type=Whole(1), default=100, show_default=True, help="Violations shown of each kind")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object, and no progress")
@click.option(
    "--temp",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder for temporary files; they need about the size of the topics  [default: the system's]",
)
@click.option(
    "--mail",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Maildir with all delivered e-mails, to compare with; that of `orders up` is .data/mail",
)
@click.option(
    "--history", is_flag=True, help="Compare the history with the topics instead, record by record, and nothing else"
)
@bootstrap_option
def audit(
    since: datetime | None,
    guarantee: str | None,
    grace: float,
    limit: int,
    json_: bool,
    temp: Path | None,
    mail: Path | None,
    history: bool,
    bootstrap: str | None,
) -> None:
    """Verify from the topics that every promise was kept.

    Every acknowledged order reached exactly one final state. Its stock was reserved once, and released once if it
    failed. It was shipped once, its check-ins were answered, its e-mails were enqueued once. Each change of a product
    was published once. Violations are shown with the records that prove them.

    Reads committed records up to the end offsets at the start, and writes nothing; the services may run meanwhile.

    Needs the environment of the workers: TOPIC_PREFIX, REQUIRED_CHECKS, VALIDATION_DEADLINE_S, FULFILMENT_NEEDS,
    CHECKIN_PATIENCE_S, EMAIL_WINDOW_S, PRODUCT_…, and, for the databases to be compared, CHECKIN_DATABASE_URL,
    PRODUCTS_DATABASE_URL and PRODUCT_LOG_DATABASE_URL; with --history, HISTORY_DATABASE_URL.

    Exit code 0: no violation. 1: violations. 2: the audit could not be done.

    \b
    orders audit
    orders audit --since 2026-07-01T12:00:00Z --json
    orders audit --mail .data/mail
    orders audit --history
    orders audit --bootstrap kafka-1:9092,kafka-2:9092 --guarantee at_least_once
    """
    from ecosystem import audit as auditing

    settings = discovery.settings(bootstrap)
    console = Console(highlight=False)
    if history:
        _compare_history(settings, console, limit, json_, bootstrap)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    errors = Console(stderr=True)
    with Progress(*columns, console=errors, transient=True, disable=json_ or not errors.is_terminal) as bar:
        task = bar.add_task("connecting")
        report = perform(
            auditing.audit(
                settings,
                since=since,
                guarantee=Guarantee(guarantee) if guarantee else None,
                grace=timedelta(seconds=grace),
                max_kept=limit,
                folder=temp,
                mail=mail,
                progress=lambda step, done, total: bar.update(task, description=step, completed=done, total=total),
            ),
            bootstrap=bootstrap,
            expected=(auditing.AuditError,),
            exit_code=2,
        )
    if json_:
        click.echo(auditing.as_json(report))
    else:
        auditing.print_report(report, console)
    sys.exit(0 if report.ok else 1)


def _compare_history(settings: Settings, console: Console, limit: int, json_: bool, bootstrap: str | None) -> NoReturn:
    from ecosystem.audit.history import HistoryAudit
    from ecosystem.audit.report import AuditError
    from ecosystem.cli.commands.history import print_history

    async def compare() -> "HistoryReport":
        return await HistoryAudit(settings, limit).compare()

    report = perform(compare(), bootstrap=bootstrap, expected=(AuditError,), exit_code=2)
    if json_:
        click.echo(json.dumps(report.as_dict()))
    else:
        print_history(report, console)
    sys.exit(0 if report.ok else 1)
