"""`orders run`: one worker."""

import sys

import click

from ecosystem import services
from ecosystem.cli import running
from ecosystem.cli.commands.shared import Whole


@click.command()
@click.argument("names", metavar="SERVICE...", nargs=-1, required=True, type=click.Choice(services.NAMES))
@click.option(
    "--port",
    type=Whole(0, 65_535),
    help="HTTP port; 0 for any that is free [default: HTTP_PORT, 8080; 3000 for checkin alone]",
)
def run(names: tuple[str, ...], port: int | None) -> None:
    """Run one worker with these services, until SIGTERM or Ctrl-C.

    Services in one worker share its connections and pass messages on without the way through Kafka. Which
    services share a worker decides its consumer group. A service may run in one group at a time: stop its workers
    before you start it in another, which goes on where they stopped.

    \b
    orders run orders fraud inventory details      the core in one process
    orders run fraud --port 8081                   one service alone

    Services: orders, fraud, inventory, details, fulfilment, email, checkin, portal,
    products, product-monitoring, product-log, product-security, product-notifications.
    """
    from runtime.worker import process  # Faust takes a second to import: not for those who ask for help

    settings = running.settings()
    if port is None and "http_port" not in settings.model_fields_set:
        port = services.port(names)
    if port is not None:
        settings = settings.model_copy(update={"http_port": port})
    sys.exit(process.run(services.build(names, settings), settings))
