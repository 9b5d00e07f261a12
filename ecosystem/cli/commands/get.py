"""`orders get`: show one order."""

import click
from rich.console import Console

from ecosystem.cli.commands.order_text import print_order, print_outcome
from ecosystem.cli.commands.shared import perform, timeout_option, url_option
from ecosystem.clients.api import OrdersApi


@click.command()
@click.argument("order_id", metavar="ID")
@click.option("--validated", is_flag=True, help="Wait until the order is VALIDATED or FAILED, and show the verdicts")
@timeout_option
@url_option
def get(order_id: str, validated: bool, timeout: int, url: str) -> None:
    """Show an order, from any worker.

    \b
    orders get my-order
    orders get my-order --validated --timeout 3000
    """

    async def show() -> None:
        console = Console()
        async with OrdersApi(url) as api:
            if validated:
                print_outcome(console, await api.validated(order_id, timeout))
            else:
                print_order(console, await api.get(order_id, timeout))

    perform(show(), url)
