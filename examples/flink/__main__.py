"""`python -m examples.flink`: the demonstration, or with `live` the job and its consumer beside a system that runs."""

import asyncio
import logging
import signal
import sys
import tempfile
import time
from pathlib import Path

import click
from confluent_kafka import KafkaException
from rich.console import Console

from ecosystem.cli import discovery
from ecosystem.clients.reader import partition_count
from ecosystem.embedded.kafka import Cluster, KafkaError
from examples.flink.comparison import Comparison
from examples.flink.consumer import ConfirmationConsumer
from examples.flink.demonstration import create_topics, demonstrate
from examples.flink.engine import Engine
from examples.flink.install import FlinkError
from examples.flink.topics import PAID_BY_FLINK
from runtime.common.settings import Settings

_DIFFERENCES_SHOWN = 20


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Join orders, payments and customers by Flink SQL."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it logs retries as errors, while a broker starts
    if context.invoked_subcommand is None:
        context.invoke(demo)


@main.command()
@click.option("--orders", type=click.IntRange(1), default=1000, show_default=True, help="Orders of the sample day")
def demo(orders: int) -> None:
    """Start Kafka and Flink, process a sample day, kill Flink in the middle, and compare with our own join."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="flink-") as folder, Cluster(Path(folder) / "kafka") as kafka:
        settings = Settings(kafka_bootstrap_servers=kafka.bootstrap_servers, topic_prefix="")
        started = time.monotonic()
        comparisons = asyncio.run(demonstrate(settings, Path(folder) / "flink", console, orders))
    for comparison in comparisons:
        _print(comparison, console)
    console.print(f"{time.monotonic() - started:.1f} s in all")
    sys.exit(any(comparison.differences for comparison in comparisons))


@main.command()
def live() -> None:
    """Join the topics of the system that `make run` or KAFKA_BOOTSTRAP_SERVERS names, until Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # raises KeyboardInterrupt
    console, settings, home = Console(), discovery.settings(), discovery.data_dir() / "flink"
    settings = asyncio.run(_prepare(settings))
    topic, group = settings.topic_prefix + PAID_BY_FLINK.name, settings.topic_prefix + "confirmations"
    servers, database = settings.kafka_bootstrap_servers, home / "confirmations.db"
    try:
        with (
            Engine(home, settings, discovery.currency(), console) as engine,
            ConfirmationConsumer(servers, topic, group, database) as consumer,
        ):
            console.print(f"Flink starts; its log is {engine.log}. Ctrl-C stops it.", soft_wrap=True)
            while True:
                engine.check()
                for line in consumer.consume(1.0):
                    console.print(line, soft_wrap=True, markup=False)
    except KeyboardInterrupt:
        console.print("Stopped")


async def _prepare(settings: Settings) -> Settings:
    """Creates missing topics. Returns the settings with the deployment's number of partitions."""
    own = settings.model_copy(update={"partitions": await partition_count(settings)})
    await create_topics(own)
    return own


def _print(comparison: Comparison, console: Console) -> None:
    differences = comparison.differences
    console.print(f"{comparison.name}: {len(comparison.ours)} rows, {len(differences)} differences")
    for line in differences[:_DIFFERENCES_SHOWN]:
        console.print(f"  {line}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    try:
        main()
    except (FlinkError, KafkaError, KafkaException) as error:
        sys.exit(str(error))
