"""A stalled worker reports that, ends, and resumes after a restart. One that waits for a broker does not end."""

import asyncio
import os
import re
import signal
import sys
from contextlib import asynccontextmanager

import aiohttp
import pytest

from ecosystem.embedded.kafka import Cluster
from ecosystem.embedded.ports import free_ports
from ecosystem.services import CORE
from schemas.messages import BuiltInCheck, Order, OrderValidation, ValidationResult
from schemas.topics import ORDER_VALIDATIONS, ORDERS
from tests.workers import PATIENCE_S, Deployment, Remote, until

LIMIT_S = 6


@pytest.fixture
def environment(deployment: Deployment):
    return environment_of(deployment)


def environment_of(deployment: Deployment):
    mine = {
        "KAFKA_BOOTSTRAP_SERVERS": deployment.servers,
        "TOPIC_PREFIX": deployment.prefix,
        "STATE_DIR": str(deployment.folder / "state"),
        "SESSION_TIMEOUT_S": "3",
        "HEARTBEAT_INTERVAL_S": "0.5",
        "TRANSACTION_TIMEOUT_S": "3",
        "PRODUCE_TIMEOUT_S": "3",
        "VALIDATION_DEADLINE_S": "3600",  # an order waits for its verdicts until another worker takes it over
        "UNKNOWN_PRODUCTS": "pass",
        "WATCHDOG_S": str(LIMIT_S),
        "HTTP_PORT": str(free_ports(1)[0]),
    }
    return {**os.environ, **mine}


@asynccontextmanager
async def running(deployment: Deployment, environment, *services, sabotaged=None):
    """A worker as a process; enters when it is ready. Killed at the end, if it still runs."""
    module = ("tests.sabotage", sabotaged) if sabotaged else ("ecosystem.cli",)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *module,
        "run",
        *services,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said = asyncio.create_task(process.stderr.read())
    worker = Remote(f"http://127.0.0.1:{environment['HTTP_PORT']}")

    async def ready():
        assert process.returncode is None, await said
        return (await readiness(deployment, worker)).get("ready")

    try:
        await until(ready, "ready", every=0.1)
        yield process, worker, said
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await said


async def is_ready(deployment: Deployment, process, worker):
    assert process.returncode is None, "it has ended"
    return (await readiness(deployment, worker)).get("ready")


async def readiness(deployment: Deployment, worker):
    try:
        return (await deployment.ask(worker, "GET", "/readyz", timeout=aiohttp.ClientTimeout(10))).json()
    except (aiohttp.ClientError, TimeoutError):
        return {}


async def metric(deployment: Deployment, worker, pattern):
    text = (await deployment.ask(worker, "GET", "/metrics")).body.decode()
    return [float(value) for value in re.findall(rf"^{pattern} ([0-9.e+]+)$", text, re.MULTILINE)]


async def broken(process):
    """Returns when what is sabotaged has broken: what is sent from then on cannot be part of the take that broke it."""
    async with asyncio.timeout(PATIENCE_S):
        assert await process.stdout.readline() == b"broken\n"


async def ended(process):
    async with asyncio.timeout(PATIENCE_S):
        return await process.wait()


def order(id_):
    return Order(id=id_, customer_id=1, product="JUMPERS", quantity=1, price=1)


def verdicts(id_):
    passed = ValidationResult.PASS
    return [OrderValidation(order_id=id_, check_type=check, validation_result=passed) for check in BuiltInCheck]


async def test_a_partition_never_fetched_makes_the_worker_unready_then_ends_it(deployment: Deployment, environment):
    ids = [f"o{n}" for n in range(20)]  # so many that each partition has some
    # It is unready from half the limit on, and ends at the limit: time enough to be asked in between.
    unhurried = environment | {"WATCHDOG_S": str(5 * LIMIT_S)}
    async with running(deployment, unhurried, "orders", sabotaged="starve") as (process, worker, said):
        await deployment.send(ORDERS, *map(order, ids))
        await asyncio.gather(*(deployment.get(worker, id_) for id_ in ids))
        for id_ in ids:
            await deployment.send(ORDER_VALIDATIONS, *verdicts(id_))

        async def unready():
            return (await readiness(deployment, worker)).get("stalled")

        [stalled] = await until(unready, "unready", every=0.1)
        assert stalled["topic"] == "order-validations"
        assert stalled["position"] < stalled["end"]
        labels = rf'{{partition="{stalled["partition"]}",topic="order-validations"}}'
        [lag] = await metric(deployment, worker, "faust_orders_partition_lag_records" + labels)
        assert lag == stalled["end"] - stalled["position"]
        [age] = await metric(deployment, worker, "faust_orders_partition_lag_seconds" + labels)
        # The first sample that shows the records may be the first one behind them, so their age is known to a sample. A
        # busy worker may not have taken it yet; tests/unit/test_backlog_age.py holds what it says then.
        assert 0 <= age < stalled["seconds"] + 5 * LIMIT_S
        assert await metric(deployment, worker, "faust_orders_stalled") == [1]
        assert await ended(process) == 1
        text = (await said).decode()
    where = f"topic=order-validations partition={stalled['partition']} position={stalled['position']}"
    assert re.search(rf"ERROR .* worker stalled component=partition {where}", text)
    assert re.search(rf"ERROR .* worker failed error=WorkerStalled.*{where}", text)

    async with running(deployment, environment, "orders") as (_, worker, _said):
        outcomes = await asyncio.gather(*(deployment.outcome(worker, id_) for id_ in ids))
    assert {o["state"] for o in outcomes} == {"VALIDATED"}
    assert len([o for o in await deployment.values(ORDERS) if o.state.decided]) == len(ids)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("deafen", "component=partition"),
        ("hang", "component=poller"),
        ("block", "the event loop is blocked"),
    ],
)
async def test_a_stalled_component_ends_the_worker_with_the_reason(deployment: Deployment, environment, what, reason):
    ids = [f"o{n}" for n in range(20)]
    async with running(deployment, environment, "orders", sabotaged=what) as (process, worker, said):
        await deployment.send(ORDERS, order("first"))
        await broken(process)
        await deployment.send(ORDERS, *map(order, ids))
        assert await ended(process) == 1
        text = (await said).decode()
    assert reason in text
    if what == "block":
        assert "in block" in text, "the stack says where"
    else:
        assert "worker failed" in text

    async with running(deployment, environment, "orders") as (_, worker, _said):
        for id_ in ids:
            await deployment.send(ORDER_VALIDATIONS, *verdicts(id_))
        outcomes = await asyncio.gather(*(deployment.outcome(worker, id_) for id_ in ids))
    assert {o["state"] for o in outcomes} == {"VALIDATED"}


async def test_a_worker_suspended_longer_than_the_limit_resumes(deployment: Deployment, environment):
    async with running(deployment, environment, *CORE) as (process, worker, _):
        await deployment.send(ORDERS, order("o1"))
        await deployment.outcome(worker, "o1")
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(LIMIT_S * 2)  # being stopped is the fault itself
        process.send_signal(signal.SIGCONT)
        await deployment.send(ORDERS, order("o2"))
        assert (await deployment.outcome(worker, "o2"))["id"] == "o2"
        await asyncio.sleep(LIMIT_S * 1.5)  # as long as a false alarm would take
        await until(lambda: is_ready(deployment, process, worker), "ready")


async def test_an_open_transaction_in_an_input_is_no_stall(deployment: Deployment, environment):
    from aiokafka import AIOKafkaProducer

    async with running(deployment, environment, *CORE) as (process, worker, _):
        zombie = AIOKafkaProducer(
            bootstrap_servers=deployment.servers,
            transactional_id=f"{deployment.prefix}zombie",
            transaction_timeout_ms=600_000,
        )
        await zombie.start()
        try:
            async with zombie.transaction():
                for partition in range(4):
                    await zombie.send_and_wait(
                        deployment.prefix + ORDERS.name, b"{}", key=b"never", partition=partition
                    )
                await deployment.send(ORDERS, order("o1"))
                await asyncio.sleep(LIMIT_S * 2)  # held back for as long as would be too long
                await until(lambda: is_ready(deployment, process, worker), "ready")
        finally:
            await zombie.stop()
        assert (await deployment.outcome(worker, "o1"))["id"] == "o1"


async def test_a_broker_unavailable_longer_than_the_limit_ends_no_worker(tmp_path, prefix):
    with Cluster(tmp_path / "kafka") as cluster:
        async with (
            Deployment(cluster.bootstrap_servers, prefix, tmp_path) as deployment,
            running(deployment, environment_of(deployment), *CORE) as (process, worker, _),
        ):
            await deployment.send(ORDERS, order("o1"))
            await deployment.outcome(worker, "o1")
            await asyncio.to_thread(cluster.kill, 1)
            await asyncio.sleep(LIMIT_S * 3)  # being away is the fault itself
            assert process.returncode is None
            await asyncio.to_thread(cluster.restart, 1)
            await deployment.send(ORDERS, order("o2"))
            assert (await deployment.outcome(worker, "o2"))["id"] == "o2"
            assert process.returncode is None


async def test_a_batch_that_cannot_be_cancelled_does_not_delay_a_stop(deployment: Deployment, environment):
    async with running(deployment, environment, "orders", sabotaged="never_leave") as (process, worker, said):
        await deployment.send(ORDERS, order("o1"))
        await until(lambda: in_hand(deployment, worker), "a batch in hand")
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0, "within 10 s, or the code would be 1"
        assert b"process exits with unfinished tasks" in await said


async def in_hand(deployment: Deployment, worker):
    return await metric(deployment, worker, r'faust_orders_partition_lag_records\{[^}]*topic="orders"\}') and sum(
        await metric(deployment, worker, r'faust_orders_partition_lag_records\{[^}]*topic="orders"\}')
    )
