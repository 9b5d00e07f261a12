"""`orders rebuild`: build a second history from the topics, and switch to it."""

from typing import TYPE_CHECKING

import click

from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import bootstrap_option, perform
from ecosystem.cli.progress import progress
from runtime.common import failpoints
from runtime.errors import DatabaseNotConfigured, DatabaseUnavailable

if TYPE_CHECKING:
    from runtime.common.settings import Settings


@click.command()
@click.option("--no-switch", is_flag=True, help="Build it, and leave the switch to a later call")
@click.option("--topics-only", is_flag=True, help="Leave behind the records that the topics no longer have")
@click.option("--discard", is_flag=True, help="Delete what an unfinished rebuild has built, and end")
@click.option("--drop-before", is_flag=True, help="Delete the history before the last rebuild, and end")
@bootstrap_option
def rebuild(no_switch: bool, topics_only: bool, discard: bool, drop_before: bool, bootstrap: str | None) -> None:
    """Build the history anew, and switch to it while it is read.

    Reads all topics into tables beside those that answer, copies the records that the topics no longer have
    from the history that answers, and then moves the tables in one transaction. Readers go on meanwhile. Workers go on
    with the new tables, without a restart. Interrupted, it goes on at the next call. Several calls share the work.

    The history before stays in the schema history_before until it is dropped. Needs HISTORY_DATABASE_URL, TOPIC_PREFIX
    and HISTORY_RETENTION_MONTHS as the workers have them.

    \b
    orders rebuild
    orders rebuild --no-switch
    orders rebuild --drop-before
    """
    from ecosystem.rebuild.run import Rebuild  # imports SQLAlchemy, which is slow: not for `--help`
    from ecosystem.rebuild.successor import BEFORE, NEXT, RebuildError

    settings = discovery.settings(bootstrap)
    failpoints.arm(settings.fail_points)
    expected = (RebuildError, DatabaseNotConfigured, DatabaseUnavailable)
    for wanted, schema in ((discard, NEXT), (drop_before, BEFORE)):
        if wanted:
            found = perform(_drop(settings, schema), expected=expected)
            click.echo(f"{schema} is deleted." if found else f"There is no {schema}.")
    if discard or drop_before:
        return
    with progress() as report:
        run = Rebuild(
            settings,
            topics_only=topics_only,
            on_progress=lambda step, done, total: report(step, done, total or None),
        )
        done = perform(run.run(switch=not no_switch), bootstrap=bootstrap, expected=expected)
    if not done:
        click.echo("Another process has switched to the new history.")
    elif no_switch:
        click.echo(f"The new history is in the schema {NEXT}. Run the command again to switch to it.")
    else:
        click.echo(f"The history is rebuilt. The one before is in the schema {BEFORE}, until --drop-before.")


async def _drop(settings: "Settings", schema: str) -> bool:
    from ecosystem.rebuild.run import opened
    from ecosystem.rebuild.successor import Successor

    async with opened(settings) as database:
        return await Successor(database, ()).drop(schema)
