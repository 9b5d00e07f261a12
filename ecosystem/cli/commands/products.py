"""`orders products`: what the shop sells."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import BinaryIO

import click
from pydantic import ValidationError
from rich.console import Console

from ecosystem.cli import running
from ecosystem.cli.commands.shared import AMOUNT, perform, service_url_option
from ecosystem.cli.products import offer, read
from ecosystem.cli.rows import BadFile, text_of
from ecosystem.clients.api import ProductsApi
from runtime.model.dead_letters import describe
from schemas.api import NewProduct, Product, ProductContent
from schemas.money import plain_amount

_url_option = service_url_option("products")


@click.group()
def products() -> None:
    """Offer products, change and withdraw them. Orders for what is not on offer fail."""


@products.command()
@click.argument("code")
@click.argument("name")
@click.argument("price", type=AMOUNT)
@_url_option
def add(code: str, name: str, price: Decimal, url: str) -> None:
    """Offer a new product.

    \b
    orders products add teapot "Teapot, 1 l" 24.90
    """
    try:
        new = NewProduct(code=code, name=name, price=price)
    except ValidationError as error:
        raise click.UsageError(describe(error)) from error

    _show(url, lambda api: api.create(new))


@products.command()
@click.argument("code")
@click.option("--name", help="What it is to be called  [default: as it is]")
@click.option("--price", type=AMOUNT, help="Of one piece  [default: as it is]")
@_url_option
def change(code: str, name: str | None, price: Decimal | None, url: str) -> None:
    """Change name or price of the product CODE.

    One that was withdrawn is offered again. Refused if somebody else changes it in the same moment.

    \b
    orders products change mug --price 11.50
    """
    if name is None and price is None:
        raise click.UsageError("say what is to change: --name, --price or both")

    async def put(api: ProductsApi) -> Product:
        now = await api.get(code)
        content = ProductContent(name=now.name if name is None else name, price=now.price if price is None else price)
        return await api.change(code, content, now.version)

    try:
        _show(url, put)
    except ValidationError as error:
        raise click.UsageError(describe(error)) from error


@products.command()
@click.argument("code")
@_url_option
def withdraw(code: str, url: str) -> None:
    """Withdraw the product CODE: orders for it fail from now on.

    \b
    orders products withdraw mug
    """
    _show(url, lambda api: api.withdraw(code))


@products.command()
@click.argument("code")
@_url_option
def show(code: str, url: str) -> None:
    """Show the product CODE.

    \b
    orders products show mug
    """
    _show(url, lambda api: api.get(code))


@products.command("import")
@click.argument("file", metavar="CSV", type=click.File("rb"))
@click.option("--only-new", is_flag=True, help="Leave those as they are that are there with another name or price")
@_url_option
def import_(file: BinaryIO, only_new: bool, url: str) -> None:
    """Offer the products of a CSV file (`-`: the input).

    The file is in UTF-8, and its first line names the columns: code,name,price. Products that are there already are
    changed where they differ. What was withdrawn stays withdrawn.

    \b
    orders products import products.csv
    orders products import --only-new - < products.csv
    """
    try:
        found = read(file.name, text_of(file))
    except BadFile as error:
        raise click.ClickException(f"Nothing was offered.\n{error}") from error

    async def bring() -> str:
        async with ProductsApi(url) as api:
            tally = await offer(api, found, change=not only_new)
        return ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.items())) or "none"

    click.echo(perform(bring(), url))


def _show(url: str, ask: Callable[[ProductsApi], Awaitable[Product]]) -> None:
    """Shows the product that the service answers with."""

    async def asked() -> Product:
        async with ProductsApi(url) as api:
            return await ask(api)

    product = perform(asked(), url)
    price = plain_amount(product.price, running.currency())
    said = f"{product.code}  {product.name}  {price}  {product.state}  version {product.version}"
    Console().print(said, markup=False, highlight=False, soft_wrap=True)
