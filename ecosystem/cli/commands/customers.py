"""`orders customers`: write customers to Kafka in place of the customer database."""

from pathlib import Path

import click
from pydantic import ValidationError

from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import Whole, perform
from ecosystem.cli.csv_files import InvalidFile
from ecosystem.cli.customer_import import SCHEMA, NewCustomer, check_file, read_file
from ecosystem.clients.writer import Writer
from schemas.messages import CustomerLevel
from schemas.topics import CUSTOMERS
from schemas.validation import describe_invalid


@click.group()
def customers() -> None:
    """Write customers to Kafka, as the customer database does. A later record of an id replaces the earlier one."""


@customers.command()
@click.argument("id_", metavar="ID", type=Whole())
@click.option("--first-name", required=True, help="First name")
@click.option("--last-name", required=True, help="Last name")
@click.option("--email", required=True, help="Address for e-mails about orders")
@click.option("--address", required=True, help="Postal address")
@click.option(
    "--level",
    type=click.Choice([level.value for level in CustomerLevel]),
    default="bronze",
    show_default=True,
    help="Level of the customer",
)
def add(id_: int, first_name: str, last_name: str, email: str, address: str, level: str) -> None:
    """Write the customer ID to Kafka, new or changed.

    \b
    orders customers add 15 --first-name Franz --last-name Kafka \\
      --email franz@example.org --address "Oppelthaus, Praha" --level gold
    """
    try:
        customer = NewCustomer(
            id=id_, first_name=first_name, last_name=last_name, email=email, address=address, level=CustomerLevel(level)
        )
    except ValidationError as error:
        raise click.UsageError(describe_invalid(error)) from error

    async def write() -> None:
        async with Writer(discovery.settings()) as writer:
            await writer.write(CUSTOMERS, [customer])

    perform(write())
    click.echo(f"{customer.id}: {customer.first_name} {customer.last_name} <{customer.email}>, {customer.level}")


@customers.command(
    "import",
    help=f"""Write the customers of a CSV file to Kafka.

    The file is in UTF-8, or in UTF-16 with a byte order mark. Its first line names the columns:
    {",".join(SCHEMA.columns)}. The level may be left out.

    All rows are checked first. If any is wrong, the errors are shown and nothing is written. The file is read twice, so
    it cannot be a pipe.

    \b
    orders customers import customers.csv
    """,
)
@click.argument("file", metavar="CSV", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def import_(file: Path) -> None:
    """Checks the whole file, then writes its customers."""
    try:
        count = check_file(file)
    except InvalidFile as error:
        raise click.ClickException(f"Nothing was written.\n{error}") from error

    async def write() -> None:
        async with Writer(discovery.settings()) as writer:
            await writer.write(CUSTOMERS, read_file(file))

    perform(write(), expected=(InvalidFile,))
    click.echo(f"{count} customers")
