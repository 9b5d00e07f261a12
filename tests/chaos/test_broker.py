"""The broker goes and comes back: what was acknowledged is decided, and no worker has to be restarted."""

import asyncio
import random

from ecosystem.kafka import Cluster
from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY
from tests.chaos.harness import CORE, Fleet, Load, faults_of
from tests.chaos.test_faults import PRODUCTS
from tests.workers import Deployment, until

AWAY_S = 15.0
"""Longer than a session, so that the worker must notice and the group forget it."""


async def test_a_broker_that_was_away_costs_no_order_and_no_restart(tmp_path, prefix):
    rng = random.Random(7)
    with Cluster(tmp_path / "kafka") as cluster:
        async with (
            Deployment(cluster.bootstrap_servers, prefix, tmp_path) as deployment,
            Fleet(deployment, CORE, CORE) as fleet,
        ):
            levels = [StockLevel(product=product, count=100_000) for product in PRODUCTS]
            await deployment.send(WAREHOUSE_INVENTORY, *levels)
            load, stop = Load(fleet, PRODUCTS, rate=40), asyncio.Event()
            clients = asyncio.create_task(load.run(stop, rng))
            await until(lambda: len(load.acknowledged) > 100, "orders before")
            await asyncio.to_thread(cluster.kill, 1)
            await asyncio.sleep(AWAY_S)  # being away is the fault itself, not something to wait for
            before = len(load.acknowledged)
            await asyncio.to_thread(cluster.restart, 1)
            await until(lambda: len(load.acknowledged) > before + 100, "orders after")
            stop.set()
            await clients
            await asyncio.gather(*(fleet.ready(p) for p in fleet.processes))

            assert [p.popen.poll() for p in fleet.processes] == [None, None], "no worker ended"
            assert await faults_of(deployment, load) == []
    print("acknowledged", len(load.acknowledged), "refused", dict(load.refused))
