"""Faults while orders come in: none is lost, none decided twice, and the stock adds up."""

import asyncio
import random

import pytest

from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY
from tests.chaos.harness import CORE, Faults, Fleet, Load, faults_of

PRODUCTS = ("UNDERPANTS", "JUMPERS", "STOCKINGS")


APART = (("orders",), ("orders",), ("fraud",), ("inventory",), ("details",))


@pytest.mark.parametrize(
    ("compositions", "rate", "deadline_s"),
    [
        pytest.param((CORE, CORE), 60, 300, id="two-composed"),
        # Shorter than a pause: a worker that wakes up finds deadlines due that another has decided about by then.
        pytest.param(APART, 25, 6, id="apart-with-a-short-deadline"),
    ],
)
async def test_kills_pauses_and_stops_lose_nothing_and_double_nothing(
    deployment, record_property, compositions, rate, deadline_s
):
    rng = random.Random(seed := random.randrange(10**6))
    record_property("seed", seed)
    print("seed", seed)
    async with Fleet(deployment, *compositions, validation_deadline_s=deadline_s) as fleet:
        counts = {"UNDERPANTS": 400, "JUMPERS": 10_000, "STOCKINGS": 100}
        await deployment.send(WAREHOUSE_INVENTORY, *[StockLevel(product=p, count=n) for p, n in counts.items()])
        load, faults, stop = Load(fleet, PRODUCTS, rate=rate), Faults(fleet, rng), asyncio.Event()
        clients = asyncio.create_task(load.run(stop, rng))
        await faults.happen(count=8, between=(0.5, 6))
        stop.set()
        await clients
        await asyncio.gather(*(fleet.ready(p) for p in fleet.processes))

        found = await faults_of(deployment, load)

    print(dict(faults.done), "acknowledged", len(load.acknowledged), "refused", dict(load.refused))
    assert found == []
    assert len(load.acknowledged) > 100
