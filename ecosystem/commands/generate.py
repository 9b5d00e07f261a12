"""`orders generate`: orders at a steady rate, each of them checked."""

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from functools import partial
from random import Random

import click

from ecosystem import running
from ecosystem.api import OrdersApi
from ecosystem.commands.shared import perform
from ecosystem.drive import Driver
from ecosystem.writer import Writer


@click.command()
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, help="Orders a second"
)
@click.option("--count", type=click.IntRange(1), help="Orders in all  [default: until Ctrl-C]")
@click.option("--seed", type=int, help="The same customers, products and quantities each time (ids are new)")
@click.option("--payments/--no-payments", default=True, help="Announce a payment for each order  [default: payments]")
@click.option(
    "--every", type=click.FloatRange(1), default=10.0, show_default=True, metavar="S", help="How often to report"
)
@click.option(
    "--url",
    "urls",
    multiple=True,
    envvar="ORDERS_URL",
    default=partial(running.urls, "orders"),
    metavar="URL",
    help="Of a worker; may be repeated",
)
def generate(
    rate: float, count: int | None, seed: int | None, payments: bool, every: float, urls: tuple[str, ...]
) -> None:
    """Post sample orders and read each one back: the order itself, and what became of it.

    Orders are posted to the workers in turn and read from the next one. Ends with a tally, and with exit code 1 if
    anything that was read did not fit what was posted.

    \b
    orders generate --rate 50 --count 1000
    orders generate --url http://127.0.0.1:8080 --url http://127.0.0.1:8081
    """

    async def drive() -> Driver:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with AsyncExitStack() as opened:
            apis = [await opened.enter_async_context(OrdersApi(url)) for url in urls]
            writer = await opened.enter_async_context(Writer(running.settings())) if payments else None
            driver = Driver(apis, writer, Random(seed), lambda text: click.echo(f"MISMATCH {text}", err=True))
            reporter = asyncio.create_task(_report(driver, every))
            try:
                await driver.run(rate, count, stop)
            finally:
                reporter.cancel()
        return driver

    driver = perform(drive())
    click.echo(str(driver.tally))
    sys.exit(1 if driver.tally.mismatches else 0)


async def _report(driver: Driver, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        click.echo(str(driver.tally))
