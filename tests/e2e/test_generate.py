"""`orders generate` against the real services."""

import asyncio
import os
import re
import signal
import sys

import pytest

from ecosystem.cli.product_import import offer
from ecosystem.clients.api import ProductsApi
from ecosystem.loadgen import sample
from ecosystem.services import CORE
from schemas.messages import OrderState, ProductEventKind
from schemas.topics import CHECKIN_REJECTIONS, ORDERS, PAYMENTS, PRODUCTS
from tests.workers import PATIENCE_S, Deployment, until
from validators.details.state import OFFERS as IN_DETAILS
from validators.inventory.state import OFFERS as IN_INVENTORY

SERVICES = (*CORE, "fulfilment", "checkin", "portal", "products")
PATIENCE_OF_CHECK_INS_S = 10.0
"""Seconds: longer than an order takes to reach fulfilment."""


@pytest.fixture
def products_database_url(new_database):
    return new_database()


@pytest.fixture
async def urls(deployment: Deployment, apart, database_url, products_database_url):
    """Environment with the URL of each service."""
    await deployment.start_core(
        apart=apart,
        only=SERVICES,
        checkin_database_url=database_url,
        products_database_url=products_database_url,
        checkin_patience_s=PATIENCE_OF_CHECK_INS_S,
        standby_replicas=0,
    )
    await deployment.stock(**{level.product: level.count for level in sample.stock()})
    found = {name: w for w in deployment.workers for name in w.readiness()["services"]}
    databases = {"checkin", "products"}
    await until(
        lambda: all(found[name].readiness()["databases"].get(name) == "open" for name in databases), "databases"
    )
    async with ProductsApi(str(found["products"].url)) as api:
        await offer(api, sample.products(), timeout_s=60)
    await until(lambda: _known(deployment), "validators know the products")
    return {f"{name.upper()}_URL": str(found[name].url) for name in SERVICES}


async def _known(deployment: Deployment):
    codes = {product.code for product in sample.products()}
    return all([codes <= set(await deployment.rows(offers.table)) for offers in (IN_DETAILS, IN_INVENTORY)])


async def generate(deployment: Deployment, urls, *arguments):
    mine = {
        "KAFKA_BOOTSTRAP_SERVERS": deployment.servers,
        "TOPIC_PREFIX": deployment.prefix,
        "CHECKIN_PATIENCE_S": str(PATIENCE_OF_CHECK_INS_S),
        "PYTHONUNBUFFERED": "1",
        **urls,
    }
    command = [sys.executable, "-m", "ecosystem.cli", "generate", *arguments]
    return await asyncio.create_subprocess_exec(*command, env=os.environ | mine, stdout=-1, stderr=-2)


async def finished(process):
    async with asyncio.timeout(2 * PATIENCE_S):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_generated_orders_are_shipped_or_rejected_as_expected(deployment: Deployment, urls):
    process = await generate(deployment, urls, "--rate", "10", "--count", "60", "--seed", "1", "--ghosts")
    code, said = await finished(process)
    assert (code, "60 posted" in said, "; 0 mismatches; " in said) == (0, True, True), said

    orders = await deployment.values(ORDERS)
    shipped = {order.id for order in orders if order.state is OrderState.SHIPPED}
    assert f"({len(shipped)} SHIPPED)" in said
    assert len(shipped) > 20
    assert {p.order_id for p in await deployment.values(PAYMENTS)} > shipped
    rejections = await deployment.values(CHECKIN_REJECTIONS)
    assert f"{len(rejections)} rejected" in said
    assert {r.reason for r in rejections} == {"the order has failed", "there is no such order"}
    changes = r"; \d prices changed; 1 products withdrawn and offered again; 1 orders of withdrawn products failed"
    assert re.search(changes, said)
    refused = {reason.partition(": ")[2] for order in orders for reason in order.reasons or ()}
    assert {"product 'advent-calendar' was withdrawn", "'advent-calendar' was withdrawn"} & refused
    assert {"there is no product 'unicorn'", "no stock of 'unicorn' was announced"} & refused
    season = [e.kind for e in await deployment.values(PRODUCTS) if e.code == sample.seasonal().code]
    assert season == [ProductEventKind.CREATED, ProductEventKind.WITHDRAWN, ProductEventKind.UPDATED]


async def test_disabled_parts_are_left_out_and_generate_ends_soon(deployment: Deployment, urls):
    process = await generate(deployment, urls, "--rate", "20", "--no-checkins", "--no-products", "--every", "1")
    await asyncio.wait_for(until_said(process, r"[1-9]\d* VALIDATED"), PATIENCE_S)
    process.send_signal(signal.SIGINT)
    code, said = await finished(process)
    assert (code, "; 0 mismatches" in said, "check-ins" in said, "SHIPPED" in said) == (0, True, False, False), said


async def until_said(process, pattern):
    while not re.search(pattern, (await process.stdout.readline()).decode()):
        assert not process.stdout.at_eof()


async def test_a_wrong_service_url_is_reported(deployment: Deployment):
    worker = await deployment.start("details")
    urls = {f"{name}_URL": str(worker.url) for name in ("ORDERS", "FULFILMENT", "CHECKIN", "PORTAL", "PRODUCTS")}
    code, said = await finished(await generate(deployment, urls, "--count", "1"))
    assert code != 0
    assert (
        f"The worker at {str(worker.url).rstrip('/')} has no fulfilment service, only details. "
        "Name another worker with --fulfilment-url, or leave the service out: --no-payments --no-checkins"
    ) in said
