"""`orders post`: place one order."""

from decimal import Decimal

import click
from pydantic import ValidationError
from rich.console import Console

from ecosystem.cli.commands.order_text import print_order, print_outcome
from ecosystem.cli.commands.shared import AMOUNT, Whole, perform, timeout_option, url_option
from ecosystem.clients.api import OrdersApi
from schemas.api import NewOrder
from schemas.validation import describe_invalid


@click.command()
@click.option(
    "--id", "order_id", help="Id of the order; repeating the command with it is safe  [default: chosen by the server]"
)
@click.option("--customer", type=Whole(), default=1, show_default=True, help="Id of the customer")
@click.option("--product", default="mug", show_default=True, help="Code of the product")
@click.option("--quantity", type=Whole(), default=1, show_default=True, help="Pieces")
@click.option("--price", type=AMOUNT, default="12.00", show_default=True, help="Price of one piece")
@click.option("--wait/--no-wait", default=True, help="Wait until the order is VALIDATED or FAILED  [default: wait]")
@timeout_option
@url_option
def post(
    order_id: str | None, customer: int, product: str, quantity: int, price: Decimal, wait: bool, timeout: int, url: str
) -> None:
    """Place an order, and show its outcome.

    \b
    orders post --product mug --quantity 2
    orders post --id my-order --customer 7 --product grinder --price 89
    """
    try:
        new = NewOrder(id=order_id, customer_id=customer, product=product, quantity=quantity, price=price)
    except ValidationError as error:
        raise click.UsageError(describe_invalid(error)) from error

    async def place() -> None:
        console = Console()
        async with OrdersApi(url) as api:
            if wait:
                print_outcome(console, await api.post_and_wait(new, timeout))
            else:
                print_order(console, await api.post(new))

    perform(place(), url)
