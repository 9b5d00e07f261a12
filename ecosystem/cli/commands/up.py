"""`orders up`: all of it on this machine."""

import os
import signal
import sys
from types import FrameType

import click
from rich.console import Console

from ecosystem.cli import running
from ecosystem.cli.commands.shared import Real, Whole, perform
from ecosystem.cli.up.system import LocalSystem, StartFailed, UpOptions
from ecosystem.embedded.kafka import KafkaError
from ecosystem.embedded.locks import Held
from ecosystem.embedded.ports import NoFreePort
from ecosystem.embedded.postgres import PostgresError

_ASKS_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option("--apart", is_flag=True, help="A process for each service, instead of all services in one")
@click.option("--workers", type=Whole(1, 16), default=1, show_default=True, help="How many of each process")
@click.option("--port", type=Whole(1, 65_000), default=8080, show_default=True, help="First HTTP port")
@click.option("--fresh", is_flag=True, help="Throw away the data of earlier runs first")
@click.option(
    "--sample/--no-sample", default=True, help="Create sample products, stock and customers  [default: sample]"
)
@click.option("--rate", type=Real(0), default=0.0, show_default=True, help="Sample orders a second, each checked")
def up(apart: bool, workers: int, port: int, fresh: bool, sample: bool, rate: float) -> None:
    """Start everything on this machine; Ctrl-C stops it.

    Kafka comes along (fetched at the first start, about 40 MB; no Docker, no Java), unless KAFKA_BOOTSTRAP_SERVERS
    names one. Data, logs and state are kept under .data (or ORDERS_DATA), and found again by the next run.

    To change between composed and --apart on the same data, stop the one and start the other: it goes on where the
    first stopped. If that was in the middle of its work it does not start, and says who has to catch up first.

    \b
    orders up --rate 1           all services in one process, an order a second
    orders up --workers 2        two of them, on the ports 8080 and 8081
    orders up --apart --fresh    a process for each service, on new data
    """
    own_kafka = "KAFKA_BOOTSTRAP_SERVERS" not in os.environ
    if fresh and not own_kafka:
        raise click.UsageError(
            "--fresh throws away the data of our own Kafka, but KAFKA_BOOTSTRAP_SERVERS names another"
        )
    if rate and not sample:
        raise click.UsageError("--rate needs the sample stock: leave out --no-sample")
    for number in _ASKS_TO_STOP:
        signal.signal(number, _interrupt)
    console = Console(highlight=False)
    try:
        with LocalSystem(UpOptions(apart, workers, port, fresh, sample, rate, own_kafka), console, perform) as local:
            local.watch()
    except KeyboardInterrupt:
        console.print("Stopped.")
        sys.exit(0)
    except Held as held:
        raise click.ClickException(f"`orders up` runs on this data already, as process {held.holder}.") from held
    except StartFailed:
        sys.exit(1)
    except (NoFreePort, KafkaError, PostgresError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise click.ClickException(
            f"{error.filename}: {error.strerror}. What runs here is kept in {running.data_dir().absolute()}: "
            "set ORDERS_DATA to a folder that you own."
        ) from error


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Unwinds from wherever we are, once: what asks again while things are being stopped is not heard."""
    for asks in _ASKS_TO_STOP:
        signal.signal(asks, signal.SIG_IGN)
    raise KeyboardInterrupt
