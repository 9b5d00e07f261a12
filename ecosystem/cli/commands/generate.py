"""`orders generate`: orders at a steady rate, with all that goes with them, each of them checked."""

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from functools import partial
from random import Random
from typing import TypeVar
from zoneinfo import ZoneInfo

import click

from ecosystem.cli import running
from ecosystem.cli.commands.shared import Real, Whole, perform, service_url_option
from ecosystem.clients.api import Api, CheckinApi, FulfilmentApi, OrdersApi, PortalApi, ProductsApi, Unreachable
from ecosystem.clients.writer import Writer
from ecosystem.loadgen.clients import CheckInDesk, Clients
from ecosystem.loadgen.driver import Driver

A = TypeVar("A", bound=Api)


@click.command()
@click.option("--rate", type=Real(min=0, min_open=True), default=10.0, show_default=True, help="Orders a second")
@click.option("--count", type=Whole(1), help="Orders in all  [default: until Ctrl-C]")
@click.option("--seed", type=Whole(), help="The same customers, products, payments and so on each time (ids are new)")
@click.option("--payments/--no-payments", default=True, help="Write payments  [default: payments]")
@click.option("--checkins/--no-checkins", default=True, help="Check in for most orders  [default: checkins]")
@click.option(
    "--ghosts/--no-ghosts",
    default=None,
    help="Check in for orders that do not exist, too; it takes CHECKIN_PATIENCE_S until they are rejected  "
    "[default: ghosts, unless there is a --count]",
)
@click.option(
    "--products/--no-products",
    default=True,
    help="Change prices now and then, withdraw a product, order it in vain and offer it again  [default: products]",
)
@click.option("--every", type=Real(1), default=10.0, show_default=True, metavar="S", help="How often to report")
@click.option(
    "--url",
    "urls",
    multiple=True,
    envvar="ORDERS_URL",
    default=partial(running.urls, "orders"),
    metavar="URL",
    help="Of a worker with the orders service; may be repeated",
)
@service_url_option("fulfilment", "--fulfilment-url")
@service_url_option("checkin", "--checkin-url")
@service_url_option("portal", "--portal-url")
@service_url_option("products", "--products-url")
def generate(
    rate: float,
    count: int | None,
    seed: int | None,
    payments: bool,
    checkins: bool,
    ghosts: bool | None,
    products: bool,
    every: float,
    urls: tuple[str, ...],
    fulfilment_url: str,
    checkin_url: str,
    portal_url: str,
    products_url: str,
) -> None:
    """Generate sample orders, and check every answer.

    Posts orders, pays and checks in for them, and reads all of it back. Most orders are paid at once; some late, in
    two parts, before they are posted, or never. For most somebody checks in, for some that failed too. What is to
    follow is waited for: the outcome, SHIPPED if all has happened, what is missing if not, the rejection of check-ins
    that were in vain. Meanwhile prices change, and a product is withdrawn, ordered until that fails for it, and
    offered again. Such orders are not in the --count.

    Orders are posted to the workers in turn and read from the next one. Ends with a tally, and with exit code 1 if
    anything that was read did not fit what was written.

    \b
    orders generate --rate 50 --count 1000
    orders generate --no-payments --no-checkins --no-products      the core alone
    orders generate --url http://127.0.0.1:8080 --url http://127.0.0.1:8081
    """

    async def drive() -> Driver:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        settings = running.settings()
        async with AsyncExitStack() as opened:

            async def client(make: type[A], url: str, service: str, leave_out: str) -> A:
                api = make(url)
                await opened.enter_async_context(api)
                await _check(api, service, leave_out)
                return api

            orders = [await opened.enter_async_context(OrdersApi(url)) for url in urls]
            fulfilment, desk, writer, shelves = None, None, None, None
            if payments or checkins:
                fulfilment = await client(FulfilmentApi, fulfilment_url, "fulfilment", "--no-payments --no-checkins")
            if checkins:
                desk = CheckInDesk(
                    await client(CheckinApi, checkin_url, "checkin", "--no-checkins"),
                    await client(PortalApi, portal_url, "portal", "--no-checkins"),
                    ZoneInfo(settings.checkin_time_zone),
                    settings.checkin_patience_s,
                )
            if payments:
                writer = await opened.enter_async_context(Writer(settings))
            if products:
                shelves = await client(ProductsApi, products_url, "products", "--no-products")
            driver = Driver(
                Clients(orders, writer, desk, fulfilment, shelves, running.currency()),
                Random(seed),
                lambda text: click.echo(f"MISMATCH {text}", err=True),
                ghosts=count is None if ghosts is None else ghosts,
            )
            reporter = asyncio.create_task(_report(driver, every))
            try:
                await driver.run(rate, count, stop)
            finally:
                reporter.cancel()
        return driver

    driver = perform(drive())
    click.echo(str(driver.tally))
    sys.exit(1 if driver.tally.mismatches else 0)


async def _check(api: Api, service: str, leave_out: str) -> None:
    """Says so if somebody answers there who is sure not to be the service. One that is not up yet is waited for."""
    try:
        services = await api.services()
    except Unreachable:
        return
    if services and service not in services:
        raise click.UsageError(
            f"The worker at {api.url} has no {service} service, only {', '.join(services)}. "
            f"Name another with --{service}-url, or leave it out: {leave_out}"
        )


async def _report(driver: Driver, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        click.echo(str(driver.tally))
