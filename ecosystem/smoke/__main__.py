"""`python -m ecosystem.smoke`: checks a running system, by default that of `docker compose up`."""

import asyncio
import sys

import click
from rich.console import Console

from ecosystem.cli.commands.shared import Whole
from ecosystem.smoke.checks import Places, checks_of
from ecosystem.smoke.report import run


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--url", default="http://127.0.0.1:8080", metavar="URL", help="The load balancer, or a worker")
@click.option("--bootstrap", default="127.0.0.1:9092", metavar="SERVERS", help="Kafka, to which payments are written")
@click.option("--mail", default="http://127.0.0.1:8025", metavar="URL", help="Mailpit")
@click.option("--prometheus", default="http://127.0.0.1:9090", metavar="URL", help="Prometheus")
@click.option("--grafana", default="http://127.0.0.1:13000", metavar="URL", help="Grafana")
@click.option("--kafka-ui", default="http://127.0.0.1:18080", metavar="URL", help="Kafka UI")
@click.option("--postgres-ui", default="http://127.0.0.1:18081", metavar="URL", help="Adminer")
@click.option("--timeout", default=60, type=Whole(1, 3600), help="Seconds for each check")
def main(timeout: int, **places: str) -> None:
    """Place orders, follow one to its e-mail, and look at every page of a running system.

    The URL `none` leaves a part out. Exit code 1 if a check fails.
    """
    where = Places(**{name: value.rstrip("/") for name, value in places.items()})
    passed = asyncio.run(run(checks_of(where), timeout, Console(highlight=False)))
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
