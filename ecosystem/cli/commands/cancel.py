"""`orders cancel`: cancel orders that are not shipped."""

import sys

import click
from rich.console import Console

from ecosystem.cli.commands.order_text import print_order
from ecosystem.cli.commands.shared import perform, timeout_option, url_option
from ecosystem.clients.api import OrdersApi, RequestRejected


@click.command()
@click.argument("order_ids", metavar="ID...", nargs=-1, required=True)
@timeout_option
@url_option
def cancel(order_ids: tuple[str, ...], timeout: int, url: str) -> None:
    """Cancel orders that have neither failed nor been shipped.

    Repeating it is harmless. If one of several orders cannot be cancelled, the others are, and the exit code is 1.

    \b
    orders cancel my-order
    orders cancel order-1 order-2
    """

    async def cancel_each() -> None:
        console, rejected = Console(), 0
        async with OrdersApi(url) as api:
            for order_id in order_ids:
                try:
                    print_order(console, await api.cancel(order_id, timeout))
                except RequestRejected as error:
                    if len(order_ids) == 1:
                        raise
                    click.echo(f"Error: {error}", err=True)
                    rejected += 1
        if rejected:
            sys.exit(1)

    perform(cancel_each(), url)
