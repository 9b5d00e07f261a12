"""`orders import`: rows of a legacy system become messages, each once."""

import asyncio
import signal
from pathlib import Path

import click

from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import perform
from ecosystem.clients.reader import partition_count
from ecosystem.clients.wording import counted
from ecosystem.imports.errors import ImportStopped, SourceUnavailable
from ecosystem.imports.files import FileRows
from ecosystem.imports.importer import Importer, Tally
from ecosystem.imports.mapping import ImportMapping, TableSource, load
from ecosystem.imports.positions import ImportPosition
from ecosystem.imports.source import Batch, Source
from ecosystem.imports.table import TableRows, install_queue, queue_sql
from runtime.common import failpoints

_EXPECTED = (ImportStopped, SourceUnavailable)


@click.command("import")
@click.argument("mapping", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--follow", is_flag=True, help="Wait for new rows and files")
@click.option(
    "--database-url",
    envvar="IMPORT_DATABASE_URL",
    metavar="URL",
    help="Legacy database of a table, postgresql://... [env: IMPORT_DATABASE_URL]",
)
@click.option("--install", is_flag=True, help="Only make the queue and the trigger of a table")
@click.option("--show-sql", is_flag=True, help="Only print the statements of --install")
def import_(mapping: Path, follow: bool, database_url: str | None, install: bool, show_sql: bool) -> None:
    """Import rows of a legacy system, each once.

    The MAPPING file names the exports (CSV or fixed width) or the table of PostgreSQL, and says which columns become
    which fields of a message. Every row becomes one message, whenever this command is killed and started again. A row
    that makes no valid message becomes a dead letter with file, line and reason.

    \b
    orders import payments.toml                 what the files have now
    orders import payments.toml --follow        rows as they arrive
    orders import stock.toml --install          once, for a table
    """
    if install or show_sql:
        _prepare_table(mapping, database_url, show_sql)
        return
    tally = perform(_import(mapping, database_url, follow), expected=_EXPECTED)
    click.echo(f"{counted(tally.imported, 'row')} imported, {tally.rejected:,} dead-lettered")


async def _import(path: Path, url: str | None, follow: bool) -> Tally:
    mapping, stop = load(path), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def open_source(positions: dict[str, ImportPosition]) -> Source:
        if isinstance(mapping.source, TableSource):
            return TableRows(mapping.name, mapping.source, _needed(url), positions)
        columns = {rule.column for rule in mapping.fields.values() if rule.column is not None}
        return FileRows(mapping.name, mapping.source, path.parent, positions, sorted(columns), follow=follow)

    settings = discovery.settings()
    failpoints.arm(settings.fail_points)
    settings = settings.model_copy(update={"partitions": await partition_count(settings)})
    return await Importer(settings, mapping, open_source, _report).run(stop, follow=follow)


def _report(batch: Batch, tally: Tally) -> None:
    rows = counted(len(batch.rows), "row")
    click.echo(f"{batch.source}: {rows}; {tally.imported:,} imported, {tally.rejected:,} dead-lettered")


def _prepare_table(path: Path, url: str | None, show_sql: bool) -> None:
    async def prepare() -> None:
        mapping: ImportMapping = load(path)
        if not isinstance(mapping.source, TableSource):
            raise ImportStopped(f"{path}: source is no table: it needs no queue")
        if show_sql:
            click.echo(queue_sql(mapping.source), nl=False)
        else:
            await install_queue(mapping.source, _needed(url))

    perform(prepare(), expected=_EXPECTED)


def _needed(url: str | None) -> str:
    if not url:
        raise ImportStopped("a table needs the address of its database: --database-url, or IMPORT_DATABASE_URL")
    return url
