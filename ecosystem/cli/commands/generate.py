"""`orders generate`: generate sample orders with payments and check-ins, and check every answer."""

import asyncio
import sys
from contextlib import AsyncExitStack
from functools import partial
from random import Random
from typing import TypeVar
from zoneinfo import ZoneInfo

import click

from checkin_service.settings import CheckinSettings
from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import Real, Whole, perform, service_url_option
from ecosystem.cli.stopping import GRACE_S, StopRequest, run_until_signal
from ecosystem.clients.api import Api, CheckinApi, FulfilmentApi, OrdersApi, PortalApi, ProductsApi, Unreachable
from ecosystem.clients.writer import Writer
from ecosystem.loadgen.clients import CheckInClients, Clients
from ecosystem.loadgen.driver import Driver
from ecosystem.loadgen.tally import Tally
from fulfilment_service.settings import FulfilmentSettings

A = TypeVar("A", bound=Api)


@click.command()
@click.option("--rate", type=Real(min=0, min_open=True), default=10.0, show_default=True, help="Orders per second")
@click.option("--count", type=Whole(1), help="Orders to generate  [default: until Ctrl-C]")
@click.option("--seed", type=Whole(), help="Seed of all random choices but the ids of orders  [default: random]")
@click.option("--payments/--no-payments", default=True, help="Write payments  [default: payments]")
@click.option("--checkins/--no-checkins", default=True, help="Check in for most orders  [default: checkins]")
@click.option(
    "--ghosts/--no-ghosts",
    default=None,
    help="Check in also for orders that do not exist; they are rejected after CHECKIN_PATIENCE_S  "
    "[default: ghosts; no-ghosts with --count]",
)
@click.option(
    "--products/--no-products",
    default=True,
    help="Change prices, and withdraw a product and offer it again, now and then  [default: products]",
)
@click.option(
    "--cancel",
    "cancelled",
    type=Real(0, 1),
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="Share of the orders to cancel, some before they are decided",
)
@click.option("--every", type=Real(1), default=10.0, show_default=True, metavar="S", help="Seconds between two reports")
@click.option(
    "--url",
    "urls",
    multiple=True,
    envvar="ORDERS_URL",
    default=partial(discovery.urls, "orders"),
    metavar="URL",
    help="Base URL of a worker with the orders service; may be repeated  [env: ORDERS_URL; default: the workers of "
    "`orders up`]",
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
    cancelled: float,
    every: float,
    urls: tuple[str, ...],
    fulfilment_url: str,
    checkin_url: str,
    portal_url: str,
    products_url: str,
) -> None:
    """Generate sample orders, and check every answer.

    Posts orders, pays them, checks in for them, and reads everything back. Most orders are paid at once; some late,
    in two parts, before they are posted, or never. Most get a check-in, also some that failed. The command waits for
    each result: the outcome, SHIPPED if nothing is missing, otherwise what is missing, and the rejection of check-ins
    for failed orders. Meanwhile prices change, and a product is withdrawn, ordered until its orders fail, and offered
    again; those orders are not in the --count. With --cancel, a share of the orders is cancelled: each must become
    CANCELLED, and stay so, unless it has failed or been shipped before.

    Orders are posted to the workers in turn, and each is read from the next worker.

    Exit code 0: every answer was as expected. 1: mismatches, which are printed to standard error.

    \b
    orders generate --rate 50 --count 1000
    orders generate --cancel 0.02
    orders generate --no-payments --no-checkins --no-products      only the core
    orders generate --url http://127.0.0.1:8080 --url http://127.0.0.1:8081
    """

    tally = Tally()

    async def drive(stop: StopRequest) -> None:
        settings = discovery.settings()
        async with AsyncExitStack() as stack:

            async def client(make: type[A], url: str, service: str, without: str) -> A:
                api = make(url)
                await stack.enter_async_context(api)
                await _require_service(api, service, without)
                return api

            orders = [await stack.enter_async_context(OrdersApi(url)) for url in urls]
            fulfilment, check_ins, writer, product_api = None, None, None, None
            if payments or checkins:
                fulfilment = await client(FulfilmentApi, fulfilment_url, "fulfilment", "--no-payments --no-checkins")
            if checkins:
                check_ins = CheckInClients(
                    await client(CheckinApi, checkin_url, "checkin", "--no-checkins"),
                    await client(PortalApi, portal_url, "portal", "--no-checkins"),
                    ZoneInfo(settings.of(CheckinSettings).checkin_time_zone),
                    settings.of(FulfilmentSettings).checkin_patience_s,
                )
            if payments:
                writer = await stack.enter_async_context(Writer(settings))
            if products:
                product_api = await client(ProductsApi, products_url, "products", "--no-products")
            driver = Driver(
                Clients(orders, writer, check_ins, fulfilment, product_api, discovery.currency()),
                Random(seed),
                lambda text: click.echo(f"MISMATCH {text}", err=True),
                ghosts=count is None if ghosts is None else ghosts,
                cancelled=cancelled,
                tally=tally,
            )
            reporter = asyncio.create_task(_report(tally, every))
            stop.grace_s = GRACE_S
            try:
                await driver.run(rate, count, stop.received)
            finally:
                reporter.cancel()

    perform(run_until_signal(drive))
    click.echo(str(tally))
    sys.exit(1 if tally.mismatches else 0)


async def _require_service(api: Api, service: str, without: str) -> None:
    """Raises `UsageError` if a worker without the service answers. A worker that is not up yet is waited for."""
    try:
        services = await api.services()
    except Unreachable:
        return
    if services and service not in services:
        raise click.UsageError(
            f"The worker at {api.url} has no {service} service, only {', '.join(services)}. "
            f"Name another worker with --{service}-url, or leave the service out: {without}"
        )


async def _report(tally: Tally, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        click.echo(str(tally))
