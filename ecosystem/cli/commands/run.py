"""`orders run`: run one worker."""

import sys

import click

from ecosystem import services
from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import Whole


class _Run(click.Command):
    """Command whose help lists the services that are installed."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Services"):
            formatter.write_dl([(service.name, service.summary()) for service in services.FOUND.values()])


@click.command(
    cls=_Run,
    help="""Run one worker with these services, until SIGTERM or Ctrl-C.

    Services of one worker share its connections and process each other's messages without a broker round trip. Which
    services share a worker decides its consumer group. A worker with one more service joins the group that runs.
    Otherwise a service runs in one group at a time: stop its workers before you start it in another group, where it
    resumes.

    \b
    orders run orders fraud inventory details      the core in one process
    orders run fraud --port 8081                   one service alone

    Further services come from packages that declare them (docs/how-to/add-a-service.md).
    """,
)
@click.argument("names", metavar="SERVICE...", nargs=-1, required=True, type=click.Choice(services.NAMES))
@click.option(
    "--port",
    type=Whole(0, 65_535),
    help="HTTP port; 0: any free port  [default: HTTP_PORT, 8080; 3000 for checkin alone]",
)
@click.option(
    "--catch-up",
    multiple=True,
    metavar="SERVICE",
    help="Start this service at the beginning of topics that it has never read, not from now on  [default: CATCH_UP]",
)
def run(names: tuple[str, ...], port: int | None, catch_up: tuple[str, ...]) -> None:
    """Runs a worker in this process."""
    from runtime.worker import process  # imports Faust, which takes a second: not for `--help`

    services.require_valid_settings(names)
    settings = discovery.settings()
    if port is None and "http_port" not in settings.model_fields_set:
        port = services.port(names)
    if port is not None:
        settings = settings.model_copy(update={"http_port": port})
    if unknown := set(catch_up) - set(names):
        raise click.UsageError(f"--catch-up names {', '.join(sorted(unknown))}, which this worker does not run")
    if catch_up:
        settings = settings.model_copy(update={"catch_up": catch_up})
    sys.exit(process.run(services.build(names, settings), settings))
