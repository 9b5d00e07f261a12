"""SIGTERM under load: the worker stops in time, breaks no connection, and processes nothing twice."""

import asyncio
import os
import random
import signal
from contextlib import asynccontextmanager, contextmanager
from itertools import count

import aiohttp
import psutil
import pytest

from ecosystem.services import CORE
from schemas.topics import ORDERS
from tests.chaos.books import Books
from tests.chaos.brokers import brokers
from tests.chaos.fleet import Fleet
from tests.chaos.load import Load
from tests.workers import Deployment

MIB = 1024 * 1024
CLOSED = {"ServerDisconnectedError", "ClientOSError", "ClientConnectionResetError"}
"""Errors of a kept connection that was closed just before its reuse (RFC 9112, 9.3.1). The request was not read, and
the client may repeat it elsewhere."""
TOLD = {"503", "ClientConnectorError"} | CLOSED
"""Errors that a client may get: retry later, connection refused, or a closed kept connection."""


@contextmanager
def frozen(cluster, node=1):
    """Suspends the broker during a `with` block: it accepts connections and does not answer."""
    os.kill(cluster.pid(node), signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(cluster.pid(node), signal.SIGCONT)


async def stopped(process):
    """Stops a worker with SIGTERM. Exit code 0: it stopped before the time limit of 10 s, after which the code is 1."""
    seconds = await process.end(signal.SIGTERM)
    print(f"{process.name} stopped within {seconds:.1f} s")
    assert process.popen.returncode == 0, f"see {process.log}"


@pytest.mark.parametrize("compositions", [(CORE, CORE), (("orders",), ("orders",), *((s,) for s in CORE[1:]))])
async def test_workers_stopped_under_load_break_no_connection(deployment: Deployment, compositions):
    async with Fleet(deployment, *compositions) as fleet:
        load = Load(fleet, random.Random(1), rate=40)
        await load.stock()
        async with load.running():
            for process in fleet.gates * 2:
                await load.more(100)
                await stopped(process)
                process.start()
                await fleet.ready()
        async with Books(deployment) as books:
            violations = await books.audit(load)
        taken = {order.id for order in await deployment.values(ORDERS)}
    print("acknowledged", len(load.acknowledged), "refused", dict(load.refused), "asked", dict(load.answers))
    assert not violations
    assert not load.broken & taken, "a request that was read is answered"
    assert load.refused.keys() <= TOLD
    assert {answer for answer in load.answers if not answer.startswith("200")} <= TOLD | {"504"}
    assert fleet.exits.total() + len(fleet.crashes) == 0


@asynccontextmanager
async def watched(process):
    """Has a viewer of the board, so that its feed reads."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"{process.url}/board/events") as response,
    ):
        await response.content.readuntil(b"event: flow")
        yield


async def test_a_worker_stops_in_time_while_the_broker_does_not_answer(tmp_path, prefix):
    async with (
        brokers(tmp_path / "kafka", nodes=1) as broker,
        Deployment(broker.servers, prefix, tmp_path) as deployment,
        Fleet(deployment, (*CORE, "board")) as fleet,
    ):
        [worker] = fleet.processes
        load = Load(fleet, random.Random(2), rate=40)
        await load.stock()
        async with load.running(), watched(worker):
            await load.more(100)
            with frozen(broker.cluster):
                await asyncio.sleep(2)  # so that batches, requests and heartbeats hang
                await stopped(worker)
            worker.start()
            await fleet.ready()
            await load.more(100)
        async with Books(deployment) as books:
            assert not await books.audit(load)
    print("acknowledged", len(load.acknowledged), "refused", dict(load.refused))
    assert load.refused.keys() <= TOLD
    assert fleet.exits.total() + len(fleet.crashes) == 0


async def test_an_unresponsive_broker_makes_503s_and_does_not_grow_memory(tmp_path, prefix):
    async with (
        brokers(tmp_path / "kafka", nodes=1) as broker,
        Deployment(broker.servers, prefix, tmp_path) as deployment,
        Fleet(deployment, CORE, max_requests=300, produce_timeout_s=5) as fleet,
    ):
        [worker] = fleet.processes
        process = psutil.Process(worker.popen.pid)
        load = Load(fleet, random.Random(3), rate=150)
        await load.stock()
        async with load.running():
            await load.more(500)
            before, most = process.memory_info().rss, 0
            with frozen(broker.cluster):
                enough = load.refused["503"] + 1000  # several times `max_requests`
                for half_seconds in count(1):
                    await asyncio.sleep(0.5)
                    most = max(most, process.memory_info().rss)
                    if half_seconds >= 30 and load.refused["503"] > enough:
                        break
                    assert half_seconds < 480, f"refused {load.refused}"
            await load.more(500)
        await fleet.ready()
        async with Books(deployment) as books:
            assert not await books.audit(load)
    print(f"rss {before / MIB:.0f} MiB, most while frozen {most / MIB:.0f} MiB, refused {dict(load.refused)}")
    assert most - before < 64 * MIB
    assert load.refused.keys() <= {"503"}
    assert fleet.exits.total() + len(fleet.crashes) == 0
