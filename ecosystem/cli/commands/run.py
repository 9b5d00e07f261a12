"""`orders run`: run one worker."""

import sys
import textwrap

import click

from ecosystem import services
from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import Whole

_LIST = textwrap.fill(", ".join(services.NAMES), 76, subsequent_indent="    ", break_on_hyphens=False)


@click.command(
    help=f"""Run one worker with these services, until SIGTERM or Ctrl-C.

    Services of one worker share its connections and process each other's messages without a broker round trip. Which
    services share a worker decides its consumer group. A service may run in one group at a time: stop its workers
    before you start it in another group, where it resumes.

    \b
    orders run orders fraud inventory details      the core in one process
    orders run fraud --port 8081                   one service alone

    \b
    Services:
    {_LIST}
    """
)
@click.argument("names", metavar="SERVICE...", nargs=-1, required=True, type=click.Choice(services.NAMES))
@click.option(
    "--port",
    type=Whole(0, 65_535),
    help="HTTP port; 0: any free port  [default: HTTP_PORT, 8080; 3000 for checkin alone]",
)
def run(names: tuple[str, ...], port: int | None) -> None:
    """Runs a worker in this process."""
    from runtime.worker import process  # imports Faust, which takes a second: not for `--help`

    settings = discovery.settings()
    if port is None and "http_port" not in settings.model_fields_set:
        port = services.port(names)
    if port is not None:
        settings = settings.model_copy(update={"http_port": port})
    sys.exit(process.run(services.build(names, settings), settings))
