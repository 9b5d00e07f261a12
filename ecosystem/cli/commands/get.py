"""`orders get`: look one order up."""

import click
from rich.console import Console

from ecosystem.cli.commands.shared import TIMEOUT_MS, perform, url_option
from ecosystem.cli.commands.show import print_order, print_outcome
from ecosystem.clients.api import OrdersApi


@click.command()
@click.argument("order_id", metavar="ID")
@click.option("--validated", is_flag=True, help="Wait until it is VALIDATED or FAILED, and show the verdicts")
@click.option("--timeout", type=TIMEOUT_MS, default=10_000, show_default=True, metavar="MS", help="How long to wait")
@url_option
def get(order_id: str, validated: bool, timeout: int, url: str) -> None:
    """Show an order, from any worker.

    \b
    orders get my-order
    orders get my-order --validated --timeout 3000
    """

    async def look() -> None:
        console = Console()
        async with OrdersApi(url) as api:
            if validated:
                print_outcome(console, await api.validated(order_id, timeout))
            else:
                print_order(console, await api.get(order_id, timeout))

    perform(look(), url)
