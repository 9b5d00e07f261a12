"""`python -m examples.legacy`: the demonstration, or with `frontend` a worker for a frontend database of yours."""

import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

import click
from pydantic import SecretStr
from rich.console import Console

from ecosystem.cli import discovery
from ecosystem.embedded.kafka import Cluster, KafkaError
from ecosystem.embedded.postgres import Postgres, PostgresError
from examples.legacy.demonstration import DemonstrationFailed, demonstrate
from examples.legacy.frontend.app import build
from runtime.common.settings import Settings
from runtime.worker import process


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Connect legacy systems: their rows become messages, and messages become their rows."""
    if context.invoked_subcommand is None:
        context.invoke(demo)


@main.command()
def demo() -> None:
    """Start Kafka and PostgreSQL, let a legacy office work for two days, and kill every process in between."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it logs retries as errors, while a broker starts
    out, started = Console(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="legacy-") as name:
        folder = Path(name)
        with Cluster(folder / "kafka") as kafka, Postgres(folder / "postgres") as postgres:
            settings = Settings(kafka_bootstrap_servers=kafka.bootstrap_servers, topic_prefix="")
            urls = postgres.database("legacy"), postgres.database("frontend")
            checks = asyncio.run(demonstrate(settings, *urls, folder, out))
    for check in checks:
        out.print(f"{check.name}: {check.count}, {'as expected' if check.passed else 'NOT as expected'}")
    out.print(f"{time.monotonic() - started:.1f} s in all")
    sys.exit(not all(check.passed for check in checks))


@main.command()
@click.option(
    "--database-url",
    envvar="LEGACY_FRONTEND_DATABASE_URL",
    metavar="URL",
    help="Frontend database, postgresql://... [env: LEGACY_FRONTEND_DATABASE_URL]",
)
def frontend(database_url: str | None) -> None:
    """Run a worker that keeps a frontend database up to date, until SIGTERM or Ctrl-C."""
    settings = discovery.settings()
    sys.exit(process.run([build(settings, SecretStr(database_url) if database_url else None)], settings))


if __name__ == "__main__":
    try:
        main()
    except (DemonstrationFailed, KafkaError, PostgresError) as error:
        sys.exit(str(error))
