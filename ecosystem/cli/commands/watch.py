"""`orders watch`: follow one order until it has its final state."""

import time

import click
from rich.console import Console
from rich.text import Text

from ecosystem.cli.commands.order_text import print_order, verdict_line
from ecosystem.cli.commands.shared import perform, timeout_option, url_option
from ecosystem.cli.stopping import StopRequest, run_until_signal
from ecosystem.clients.api import OrdersApi
from schemas.messages import Order


@click.command()
@click.argument("order_id", metavar="ID")
@timeout_option
@url_option
def watch(order_id: str, timeout: int, url: str) -> None:
    """Follow an order: each state and verdict as it comes.

    Waits for the order first, and ends with FAILED, SHIPPED or CANCELLED. What has happened already is shown at once.
    Each line has the seconds since the command began. A worker that restarts interrupts nothing.

    \b
    orders watch my-order
    orders watch my-order --timeout 60000      wait a minute for it
    """

    async def follow(_: StopRequest) -> None:
        console, began = Console(highlight=False), time.monotonic()
        async with OrdersApi(url) as api:
            async for event in api.events(order_id, timeout):
                console.print(Text(f"{time.monotonic() - began:7.2f} s  ", "dim"), end="")
                if isinstance(event, Order):
                    print_order(console, event)
                else:
                    console.print(verdict_line(event), soft_wrap=True)

    perform(run_until_signal(follow), url)
