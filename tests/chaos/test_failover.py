"""One of two workers is lost: its orders stay readable, and its standby replicas are promoted."""

import asyncio
import re
import signal

import pytest

from ecosystem.services import CORE
from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY
from tests.chaos.fleet import Fleet, Process
from tests.chaos.reads import Reads
from tests.workers import Deployment, Remote, until
from validators.inventory.state import STOCK

ORDERS = 200
GENEROUS_S = 60.0
"""Seconds for a read on a busy machine. The header of stale reads shows that no read waits for a restore."""


async def readiness(deployment: Deployment, process: Process) -> dict:
    return (await deployment.ask(Remote(process.url), "GET", "/readyz")).json()


async def settled(deployment: Deployment, fleet: Fleet) -> None:
    """Waits until all partitions are assigned and all standby replicas complete: nothing moves after that."""

    async def done() -> bool:
        found = [await readiness(deployment, p) for p in fleet.processes]
        owned = [p for r in found for p in r["partitions"]]
        followed = [p for r in found for p in r["standby"]]
        shared = all([r["ready"] and len(r["partitions"]) == 4 // len(found) for r in found])
        return shared and len(owned) == len(followed) == 4 and not any(sum(r["standby"].values()) for r in found)

    await until(done, "copies complete", every=0.2)


async def posted(deployment: Deployment, worker: Remote, body: dict) -> None:
    """Posts an order until it is accepted. A 503 is repeated."""

    async def taken() -> bool:
        status, answer = await deployment.post(worker, **body)
        assert status in {200, 201, 503}, answer
        return status != 503

    await until(taken, "order taken", every=0.5)


async def answered_by_owners(reads: Reads) -> None:
    """Waits for a hundred reads in a row from owners: as long as an owner can, it answers itself."""
    since, marked = len(reads.seconds), reads.marked

    def hundred() -> bool:
        nonlocal since, marked
        if reads.marked > marked:  # a worker was stalled for a moment
            since, marked = len(reads.seconds), reads.marked
        return len(reads.seconds) > since + 100

    await until(hundred, "reads without copies")


async def stocked(deployment: Deployment) -> bool:
    return "JUMPERS" in await deployment.rows(STOCK)


async def known_orders(deployment: Deployment, gate: Process) -> dict:
    """Posts orders, of which some fail. Returns their outcomes."""
    worker = Remote(gate.url)
    bodies = [
        {"id": f"o-{n}", "customerId": n, "product": "JUMPERS", "quantity": -1 if n % 5 == 0 else 1, "price": 1}
        for n in range(ORDERS)
    ]
    await asyncio.gather(*(posted(deployment, worker, body) for body in bodies))
    outcomes = await asyncio.gather(*(deployment.outcome(worker, body["id"]) for body in bodies))
    assert {o["state"] for o in outcomes} == {"VALIDATED", "FAILED"}
    return {o["id"]: o for o in outcomes}


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_reads_continue_from_standby_replicas_after_a_lost_worker(deployment: Deployment, guarantee, fault):
    async with Fleet(deployment, CORE, CORE, processing_guarantee=guarantee) as fleet:
        stays, goes = fleet.processes
        await deployment.send(WAREHOUSE_INVENTORY, StockLevel(product="JUMPERS", count=10_000))
        await settled(deployment, fleet)
        await until(lambda: stocked(deployment), "stock known: orders do not wait for it")
        outcomes = await known_orders(deployment, stays)
        await settled(deployment, fleet)
        reads, stop = Reads(deployment.http, stays.url, outcomes), asyncio.Event()
        clients = asyncio.create_task(reads.run(list(outcomes), stop))
        await answered_by_owners(reads)
        marked = reads.marked

        goes.wanted = False
        goes.tell(fault)
        await until(lambda: reads.marked > marked, "reads from copies")
        await until(lambda: all_at(deployment, stays), "taken over")
        await answered_by_owners(reads)
        if fault == signal.SIGSTOP:
            await wakes_up_and_answers_nothing_wrong(deployment, fleet, goes)
        stop.set()
        await clients

        print("longest", max(reads.seconds), "reads", dict(reads.statuses), "marked", reads.marked, reads.oldest_s)
        assert reads.wrong == []
        assert max(reads.seconds) < GENEROUS_S
        restored = [int(n) for n in re.findall(r"partitions restored .*restored=(\d+)", stays.log.read_text())]
        assert restored[-1] < ORDERS / 4, "the takeover has no more to read than what came last"


async def wakes_up_and_answers_nothing_wrong(deployment: Deployment, fleet: Fleet, sleeper: Process) -> None:
    """A resumed worker does not know the orders that another owner processed meanwhile."""
    gate = Remote(fleet.processes[0].url)
    late = [{"id": f"late-{n}", "customerId": n, "product": "JUMPERS", "quantity": 1, "price": 1} for n in range(20)]
    for body in late:
        await posted(deployment, gate, body)
    outcomes = {body["id"]: await deployment.outcome(gate, body["id"]) for body in late}
    # Without a timeout it must answer at once from its own state.
    reads, stop = Reads(deployment.http, sleeper.url, outcomes, timeout_ms=0), asyncio.Event()
    clients = asyncio.create_task(reads.run(list(outcomes), stop, clients=40))
    await asyncio.sleep(1)  # the requests are waiting when it resumes
    sleeper.tell(signal.SIGCONT)
    await until(lambda: len(reads.seconds) > 100, "reads at the worker that woke up")
    await settled(deployment, fleet)
    stop.set()
    await clients
    assert reads.wrong == []


async def all_at(deployment: Deployment, process: Process) -> bool:
    found = await readiness(deployment, process)
    return found["ready"] and len(found["partitions"]) == 4
