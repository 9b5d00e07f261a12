"""One of two workers is gone: what it held is read on, and its partitions are taken over from copies."""

import asyncio
import re
import signal

import pytest

from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY
from tests.chaos.fleet import CORE, SESSION_S, Fleet, Process
from tests.chaos.reads import Reads
from tests.workers import Answer, Deployment, Remote, until

ORDERS = 200
GENEROUS_S = 10.0
"""For a read while a machine is busy; without standbys it takes the rest of the session and a takeover."""


async def readiness(deployment: Deployment, process: Process) -> dict:
    return (await deployment.ask(Remote(process.url), "GET", "/readyz")).json()


async def settled(deployment: Deployment, fleet: Fleet) -> None:
    """Waits until all partitions are owned and each worker's copies are complete."""

    async def done() -> bool:
        found = [await readiness(deployment, p) for p in fleet.processes]
        owned = [p for r in found for p in r["partitions"]]
        followed = [p for r in found for p in r["standby"]]
        return len(owned) == len(followed) == 4 and not any(sum(r["standby"].values()) for r in found)

    await until(done, "copies complete", every=0.2)


async def known_orders(deployment: Deployment, gate: Process) -> dict:
    """Orders of which some failed, and what became of each."""
    worker = Remote(gate.url)
    bodies = [
        {"id": f"o-{n}", "customerId": n, "product": "JUMPERS", "quantity": -1 if n % 5 == 0 else 1, "price": 1}
        for n in range(ORDERS)
    ]
    for status, body in await asyncio.gather(*(deployment.post(worker, **body) for body in bodies)):
        assert status == 201, body
    outcomes = await asyncio.gather(*(deployment.outcome(worker, body["id"]) for body in bodies))
    assert {o["state"] for o in outcomes} == {"VALIDATED", "FAILED"}
    return {o["id"]: o for o in outcomes}


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_what_a_lost_worker_held_is_read_on_from_copies_and_nothing_wrong(deployment, guarantee, fault):
    async with Fleet(deployment, CORE, CORE, processing_guarantee=guarantee) as fleet:
        stays, goes = fleet.processes
        await deployment.send(WAREHOUSE_INVENTORY, StockLevel(product="JUMPERS", count=10_000))
        outcomes = await known_orders(deployment, stays)
        await settled(deployment, fleet)
        reads, stop = Reads(deployment.http, stays.url, outcomes), asyncio.Event()
        clients = asyncio.create_task(reads.run(list(outcomes), stop))
        await until(lambda: len(reads.seconds) > 100, "reads before")
        assert reads.marked == 0, "as long as the owner lives, it answers"

        goes.wanted = False
        goes.tell(fault)
        await until(lambda: reads.marked > 10, "reads from copies")
        await until(lambda: all_at(deployment, stays), "taken over")
        before = len(reads.seconds)
        await until(lambda: len(reads.seconds) > before + 100, "reads after")
        answer = await ask(deployment, stays, next(iter(outcomes)))
        assert "X-Served-By" not in answer.headers, "the new owner answers for itself"
        if fault == signal.SIGSTOP:
            await wakes_up_and_answers_nothing_wrong(deployment, fleet, goes)
        stop.set()
        await clients

        print("longest", max(reads.seconds), "reads", dict(reads.statuses), "marked", reads.marked, reads.oldest_s)
        assert reads.wrong == []
        assert max(reads.seconds) < GENEROUS_S
        restored = [int(n) for n in re.findall(r"took over .*restored=(\d+)", stays.log.read_text())]
        assert restored[-1] < ORDERS / 4, "the takeover has no more to read than what came last"


async def wakes_up_and_answers_nothing_wrong(deployment: Deployment, fleet: Fleet, sleeper: Process) -> None:
    """A worker that was stopped does not know, when it goes on, of orders that another owner took meanwhile."""
    gate = Remote(fleet.processes[0].url)
    late = [{"id": f"late-{n}", "customerId": n, "product": "JUMPERS", "quantity": 1, "price": 1} for n in range(20)]
    for body in late:
        assert (await deployment.post(gate, **body))[0] == 201
    outcomes = {body["id"]: await deployment.outcome(gate, body["id"]) for body in late}
    # Without a time to wait, it has to say at once what it believes.
    reads, stop = Reads(deployment.http, sleeper.url, outcomes, timeout_ms=0), asyncio.Event()
    clients = asyncio.create_task(reads.run(list(outcomes), stop, clients=40))
    await asyncio.sleep(1)  # the requests lie there when it wakes up
    sleeper.tell(signal.SIGCONT)
    await until(lambda: len(reads.seconds) > 100, "reads at the worker that woke up")
    await settled(deployment, fleet)
    stop.set()
    await clients
    assert reads.wrong == []


async def all_at(deployment: Deployment, process: Process) -> bool:
    found = await readiness(deployment, process)
    return found["ready"] and len(found["partitions"]) == 4


async def ask(deployment: Deployment, process: Process, id_: str) -> Answer:
    return await deployment.ask(Remote(process.url), "GET", f"/v1/orders/{id_}/validated?timeout=20000")


assert SESSION_S < GENEROUS_S
