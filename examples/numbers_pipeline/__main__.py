"""`python -m examples.numbers_pipeline`: runs the pipeline; its commands submit inputs, and read the history."""

import asyncio
import logging
import signal
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from aiokafka.errors import KafkaError as KafkaClientError
from asyncpg import InterfaceError
from asyncpg import PostgresError as PostgresClientError
from pydantic import ValidationError
from rich.console import Console

from ecosystem.cli.commands.shared import Real
from ecosystem.clients.writer import Writer
from ecosystem.embedded.kafka import KafkaError
from ecosystem.embedded.ports import NoFreePort
from ecosystem.embedded.postgres import PostgresError
from examples.numbers_pipeline import generator, history, output, queries, resubmission
from examples.numbers_pipeline.demonstration import Demonstration
from examples.numbers_pipeline.settings import NumbersSettings
from examples.numbers_pipeline.stages import STAGES, START, TOPICS
from examples.numbers_pipeline.system import NAMES, PipelineError, System, find, home
from runtime.common.settings import Settings
from runtime.errors import DatabaseUnavailable, PartitionCountMismatch
from runtime.hosting import ServiceDefinition
from schemas.validation import describe_invalid, field_errors

_STAGES = {stage.name: stage for stage in STAGES}
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_EXPECTED = (PipelineError, KafkaError, PostgresError, NoFreePort, PartitionCountMismatch)
"""Errors whose text is enough for the user."""


class _Main(click.Group):
    """Group whose commands end with one line about an expected error."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ValidationError as error:  # of settings
            lines = [f"the environment variable {e.field.upper()} {e.reason}" for e in field_errors(error)]
            raise click.UsageError("; ".join(lines)) from error
        except _EXPECTED as error:
            raise click.ClickException(str(error) or repr(error)) from error
        except (DatabaseUnavailable, PostgresClientError, InterfaceError) as error:
            raise click.ClickException(f"{error}: is NUMBERS_DATABASE_URL right, and does PostgreSQL run?") from error
        except KafkaClientError as error:
            raise click.ClickException(f"{error}: is KAFKA_BOOTSTRAP_SERVERS right, and does Kafka run?") from error
        except OSError as error:
            if error.filename is None:
                raise click.ClickException(str(error) or repr(error)) from error
            where = f"{error.filename}: {error.strerror}. Data are kept in {home().absolute()}"
            raise click.ClickException(f"{where}: set ORDERS_DATA to a folder that you can write to.") from error


@click.group(cls=_Main, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Run five stages that do simple things to numbers, and keep what every stage has made.

    Without a command: `run`.
    """
    if context.invoked_subcommand != worker.name:
        for name in ("aiokafka", "runtime.database.pool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # they log each retry, also while a server starts
    if context.invoked_subcommand is None:
        context.invoke(run)


@main.command()
@click.option("--apart", is_flag=True, help="Run each stage in a worker of its own, instead of all in one")
def run(apart: bool) -> None:
    """Start Kafka, PostgreSQL, the stages and a generator; Ctrl-C stops it all.

    NUMBERS_RATE, NUMBERS_COUNT, NUMBERS_SIZE and NUMBERS_JITTER tune the generator.
    """
    own = NumbersSettings()
    Settings()  # wrong variables are told before anything starts
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)  # raises KeyboardInterrupt
    console = Console()
    output.plain(console, f"Starting Kafka, PostgreSQL and {len(NAMES) if apart else 'a'} worker{'s' * apart}")
    try:
        with System(apart=apart) as system:
            output.plain(console, system.welcome())
            try:
                asyncio.run(Demonstration(system, own, console).run())
            finally:
                for number in _STOP_SIGNALS:
                    signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C would leave a part running
                output.plain(console, "Stopping")
    except KeyboardInterrupt:
        pass
    output.plain(console, "Stopped.")


@main.command()
@click.argument("names", metavar="STAGE...", nargs=-1, required=True, type=click.Choice(NAMES))
def worker(names: tuple[str, ...]) -> None:
    """Run a worker with these stages, or `numbers-history`, until SIGTERM or Ctrl-C. `run` does so."""
    from runtime.worker import process  # slow to import: not for the other commands

    settings = Settings()
    built = {history.NAME: history.build(settings), **{name: ServiceDefinition(s) for name, s in _STAGES.items()}}
    sys.exit(process.run([built[name] for name in dict.fromkeys(names)], settings))


@main.command()
@click.argument("text", metavar="INPUT")
def submit(text: str) -> None:
    """Submit an input such as '{"numbers": [76452, 61211234, 8243724]}', and print its id."""
    try:
        message = generator.with_id(text)
    except ValidationError as error:
        raise click.UsageError(f'{describe_invalid(error, "INPUT")}, such as {{"numbers": [76452]}}') from error
    settings = find()

    async def write() -> None:
        async with Writer(settings, TOPICS) as writer:
            await writer.write(START, [message])

    asyncio.run(write())
    click.echo(message.id)


_ID = click.option("--id", "id_", required=True, metavar="ID", help="Id of the input, as `run` prints it")


@main.command("history")
@_ID
def history_(id_: str) -> None:
    """Show what an input has become, when, and where each record lies."""
    output.plain(Console(), output.way(asyncio.run(_records(find(), id_))))


@main.command()
@click.option("--stage", required=True, type=click.Choice(list(_STAGES)), help="Stage that gets the record again")
@_ID
def resubmit(stage: str, id_: str) -> None:
    """Submit the stored record of an input to a stage again, byte for byte."""
    settings = find()

    async def replay() -> str:
        records = await _records(settings, id_)
        record = resubmission.record_for(_STAGES[stage], records)
        if record is None:
            raise PipelineError(f"Stage {stage} has not got input {id_} yet: see `history --id {id_}`.")
        async with Writer(settings, TOPICS) as writer:
            await writer.write_raw([resubmission.again(record, records)])
        return f"{record.place} submitted again to {record.topic}: {queries.shown(record.value)}"

    output.plain(Console(), asyncio.run(replay()))


@main.command()
@click.option("--minutes", type=Real(0), help="Inputs of the last so many minutes alone  [default: all]")
def timings(minutes: float | None) -> None:
    """Show how long each stage takes: p50, p90, p99 and maximum."""
    since = None if minutes is None else datetime.now(UTC) - timedelta(minutes=minutes)

    async def read() -> list[queries.StageTiming]:
        async with history.connected(find()) as connection:
            return await queries.timings(connection, since)

    if not (found := asyncio.run(read())):
        raise PipelineError("No input has passed a stage in this time.")
    Console().print(output.times(found))


async def _records(settings: Settings, id_: str) -> list[queries.StoredRecord]:
    async with history.connected(settings) as connection:
        records = await queries.records_of(connection, id_)
    if not records:
        raise PipelineError(f"The history has no input {id_}: take an id that `run` has printed.")
    return records


if __name__ == "__main__":
    main(prog_name="python -m examples.numbers_pipeline")
