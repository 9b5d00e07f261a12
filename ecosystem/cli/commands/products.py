"""`orders products`: offer, change, withdraw, show and import products."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import BinaryIO

import click
from pydantic import ValidationError
from rich.console import Console

from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import AMOUNT, perform, service_url_option
from ecosystem.cli.csv_files import InvalidFile, decoded
from ecosystem.cli.product_import import offer, read_products
from ecosystem.clients.api import ProductsApi
from schemas.api import NewProduct, Product, ProductContent
from schemas.money import plain_amount
from schemas.validation import describe_invalid

_url_option = service_url_option("products")


@click.group()
def products() -> None:
    """Offer products, change and withdraw them. Orders for other products fail."""


@products.command()
@click.argument("code")
@click.argument("name")
@click.argument("price", type=AMOUNT)
@_url_option
def add(code: str, name: str, price: Decimal, url: str) -> None:
    """Offer a new product: CODE, NAME and PRICE of one piece.

    \b
    orders products add teapot "Teapot, 1 l" 24.90
    """
    try:
        new = NewProduct(code=code, name=name, price=price)
    except ValidationError as error:
        raise click.UsageError(describe_invalid(error)) from error

    _show(url, lambda api: api.create(new))


@products.command()
@click.argument("code")
@click.option("--name", help="New name  [default: unchanged]")
@click.option("--price", type=AMOUNT, help="New price of one piece  [default: unchanged]")
@_url_option
def change(code: str, name: str | None, price: Decimal | None, url: str) -> None:
    """Change name or price of the product CODE.

    A withdrawn product is offered again. Fails if somebody else changes the product at the same time.

    \b
    orders products change mug --price 11.50
    """
    if name is None and price is None:
        raise click.UsageError("name what to change: --name, --price or both")

    async def put(api: ProductsApi) -> Product:
        now = await api.get(code)
        content = ProductContent(name=now.name if name is None else name, price=now.price if price is None else price)
        return await api.change(code, content, now.version)

    try:
        _show(url, put)
    except ValidationError as error:
        raise click.UsageError(describe_invalid(error)) from error


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
@click.option("--only-new", is_flag=True, help="Leave existing products as they are")
@_url_option
def import_(file: BinaryIO, only_new: bool, url: str) -> None:
    """Offer the products of a CSV file (`-`: standard input).

    The file is in UTF-8, and its first line names the columns: code,name,price. Existing products are changed where
    they differ; withdrawn products stay withdrawn.

    \b
    orders products import products.csv
    orders products import --only-new - < products.csv
    """
    try:
        found = read_products(file.name, decoded(file))
    except InvalidFile as error:
        raise click.ClickException(f"Nothing was offered.\n{error}") from error

    async def offer_all() -> str:
        async with ProductsApi(url) as api:
            tally = await offer(api, found, change=not only_new)
        return ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.items())) or "none"

    click.echo(perform(offer_all(), url))


def _show(url: str, request: Callable[[ProductsApi], Awaitable[Product]]) -> None:
    """Sends the request, and prints the product in its response."""

    async def send() -> Product:
        async with ProductsApi(url) as api:
            return await request(api)

    product = perform(send(), url)
    price = plain_amount(product.price, discovery.currency())
    line = f"{product.code}  {product.name}  {price}  {product.state}  version {product.version}"
    Console().print(line, markup=False, highlight=False, soft_wrap=True)
