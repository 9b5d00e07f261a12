"""`orders stock`: write stock levels to Kafka in place of the warehouse."""

import click

from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import NAME, Whole, perform
from ecosystem.clients.writer import Writer
from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY


@click.group()
def stock() -> None:
    """Write stock levels to Kafka, as the warehouse does."""


@stock.command("set")
@click.argument("product", type=NAME)
@click.argument("count", type=Whole(0, 2**53))
def set_count(product: str, count: int) -> None:
    """Write a stock level: the warehouse holds COUNT of PRODUCT.

    COUNT is absolute and includes reserved pieces.

    \b
    orders stock set mug 250
    """

    async def write() -> None:
        async with Writer(discovery.settings()) as writer:
            await writer.write(WAREHOUSE_INVENTORY, [StockLevel(product=product, count=count)])

    perform(write())
    click.echo(f"{product}: {count}")
