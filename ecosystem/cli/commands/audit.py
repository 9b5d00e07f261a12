"""`orders audit`: is the promise kept?"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ecosystem.cli import running
from ecosystem.cli.commands.shared import Real, Whole, bootstrap_option, perform
from runtime.common.settings import Guarantee


class _Since(click.ParamType):
    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            found = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a time such as 2026-07-01 or 2026-07-01T12:00:00Z", param, ctx)
        return found if found.tzinfo else found.replace(tzinfo=UTC)


@click.command()
@click.option("--since", type=_Since(), help="Only orders posted from then on, UTC if it names no zone  [default: all]")
@click.option(
    "--guarantee",
    type=click.Choice([g.value for g in Guarantee]),
    help="What was promised  [default: PROCESSING_GUARANTEE, exactly_once]",
)
@click.option("--grace", type=Real(0), default=30.0, show_default=True, metavar="S", help="How late things may be")
@click.option("--limit", type=Whole(1), default=100, show_default=True, help="Violations of one kind shown in full")
@click.option("--json", "json_", is_flag=True, help="One JSON object, and no progress")
@click.option(
    "--temp",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder for temporary files, of about the size of what is read  [default: the system's]",
)
@click.option(
    "--mail",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Maildir with all delivered e-mails, to compare; of `orders up`: .data/mail",
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
    bootstrap: str | None,
) -> None:
    """Verify from the topics that every promise was kept.

    Every acknowledged order reached exactly one final state. Its stock was reserved once, and released once if it
    failed. It was shipped once, its check-ins were answered, its e-mails were enqueued once. Each change of a product
    was published once. Violations are shown with the records that prove them.

    Reads what is committed, up to the ends found at the start, and writes nothing; the services may go on meanwhile.
    Exit code 0: no violation. 1: some. 2: it could not be done. Reads TOPIC_PREFIX, REQUIRED_CHECKS,
    VALIDATION_DEADLINE_S, FULFILMENT_NEEDS, CHECKIN_PATIENCE_S, EMAIL_WINDOW_S and PRODUCT_… as the workers do, and
    looks into the databases that CHECKIN_DATABASE_URL, PRODUCTS_DATABASE_URL and PRODUCT_LOG_DATABASE_URL name.

    \b
    orders audit
    orders audit --since 2026-07-01T12:00:00Z --json
    orders audit --mail .data/mail
    orders audit --bootstrap kafka-1:9092,kafka-2:9092 --guarantee at_least_once
    """
    from ecosystem import audit as auditing

    settings = running.settings(bootstrap)
    console = Console(highlight=False)
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
                kept=limit,
                folder=temp,
                mail=mail,
                progress=lambda doing, done, of: bar.update(task, description=doing, completed=done, total=of),
            ),
            bootstrap=bootstrap,
            refusals=(auditing.AuditError,),
            exit_code=2,
        )
    if json_:
        click.echo(auditing.as_json(report))
    else:
        auditing.show(report, console)
    sys.exit(0 if report.ok else 1)
