"""`orders up`: start everything on this machine."""

import signal
import sys
from types import FrameType

import click
from rich.console import Console

from ecosystem import services
from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import Real, Whole, perform
from ecosystem.cli.up.system import LocalSystem, StartFailed, UpOptions
from ecosystem.embedded.kafka import KafkaError
from ecosystem.embedded.locks import LockHeld
from ecosystem.embedded.ports import NoFreePort
from ecosystem.embedded.postgres import PostgresError
from runtime.common.kafka_settings import SecurityProtocol, brokers_named
from runtime.common.settings import Settings

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option("--apart", is_flag=True, help="Start a process for each service, instead of one for all")
@click.option("--workers", type=Whole(1, 16), default=1, show_default=True, help="Processes of each kind")
@click.option(
    "--port",
    type=Whole(1, 65_000),
    default=8080,
    show_default=True,
    help="First HTTP port; further workers get the next free ports",
)
@click.option("--fresh", is_flag=True, help="Delete the data of earlier runs first")
@click.option(
    "--sample/--no-sample", default=True, help="Create sample products, stock and customers  [default: sample]"
)
@click.option("--rate", type=Real(0), default=0.0, show_default=True, help="Sample orders per second; 0: none")
def up(apart: bool, workers: int, port: int, fresh: bool, sample: bool, rate: float) -> None:
    """Start everything on this machine; Ctrl-C stops it.

    Starts Kafka (fetched at the first start, about 40 MB; no Docker, no Java), unless KAFKA_BOOTSTRAP_SERVERS names
    brokers; PostgreSQL; a mail server; the workers; and sample data. Data, logs and state are kept under .data (or
    ORDERS_DATA) for the next run.

    To change between one process and --apart on the same data, stop the one and start the other: its services resume
    where they stopped. If no common offset exists, it does not start and names the service that must catch up first.

    \b
    orders up --rate 1           all services in one process, one order per second
    orders up --workers 2        two of them, on the ports 8080 and 8081
    orders up --apart --fresh    a process for each service, on new data
    """
    own_kafka = not brokers_named()
    if fresh and not own_kafka:
        raise click.UsageError(
            "--fresh deletes the data of the embedded Kafka, but KAFKA_BOOTSTRAP_SERVERS names another. "
            "Unset it, or leave out --fresh."
        )
    if rate and not sample:
        raise click.UsageError("--rate needs the sample stock: leave out --no-sample")
    services.require_valid_settings(services.NAMES)
    if own_kafka and Settings().kafka_security_protocol is not SecurityProtocol.PLAINTEXT:
        raise click.UsageError(
            "KAFKA_SECURITY_PROTOCOL is for brokers of your own, and none are named. Set KAFKA_BOOTSTRAP_SERVERS, or "
            "unset KAFKA_SECURITY_PROTOCOL."
        )
    for number in _STOP_SIGNALS:
        signal.signal(number, _interrupt)
    console = Console(highlight=False)
    try:
        with LocalSystem(UpOptions(apart, workers, port, fresh, sample, rate, own_kafka), console, perform) as local:
            local.watch()
    except KeyboardInterrupt:
        console.print("Stopped.")
        sys.exit(0)
    except LockHeld as held:
        raise click.ClickException(f"`orders up` runs on this data already, as process {held.holder}.") from held
    except StartFailed:
        sys.exit(1)
    except (NoFreePort, KafkaError, PostgresError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise click.ClickException(
            f"{error.filename}: {error.strerror}. Data are kept in {discovery.data_dir().absolute()}: "
            "set ORDERS_DATA to a folder that you can write to."
        ) from error


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raises `KeyboardInterrupt` once; further signals are ignored while everything is being stopped."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
