"""Workers run by the `orders` command as processes, stopped by signals and killed."""

import asyncio
import os
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiokafka import TopicPartition as Physical
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from ecosystem.embedded.ports import free_ports, is_open
from ecosystem.loadgen.sample import stock
from ecosystem.services import CORE
from schemas.messages import Order
from schemas.topics import ORDER_VALIDATIONS, ORDERS, WAREHOUSE_INVENTORY
from tests.workers import PATIENCE_S, Deployment, Remote, until


@pytest.fixture
def environment(deployment: Deployment):
    mine = {
        "KAFKA_BOOTSTRAP_SERVERS": deployment.servers,
        "TOPIC_PREFIX": deployment.prefix,
        "STATE_DIR": str(deployment.folder / "state"),
        "SESSION_TIMEOUT_S": "6",
        "HEARTBEAT_INTERVAL_S": "0.5",
        "PRODUCE_TIMEOUT_S": str(PATIENCE_S),
        "UNKNOWN_PRODUCTS": "pass",
        "HTTP_PORT": str(free_ports(1)[0]),
    }
    return {**{k: v for k, v in os.environ.items() if k not in {"ORDERS_URL", "ORDERS_DATA"}}, **mine}


@asynccontextmanager
async def running(deployment: Deployment, environment):
    """Runs `orders run` with the core until the block ends. Enters when the worker is ready."""
    process = await orders(environment, "run", *CORE)
    worker = Remote(f"http://127.0.0.1:{environment['HTTP_PORT']}")

    try:
        await until(lambda: is_ready(deployment, worker, process), "ready")
        yield process, worker
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def is_ready(deployment: Deployment, worker, process):
    """Whether a worker is ready. Fails if its process has ended."""
    assert process.returncode is None, "ended before it was ready"
    try:
        return (await deployment.ask(worker, "GET", "/readyz")).status == 200
    except aiohttp.ClientError:
        return False


async def orders(environment, *arguments, **pipes):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ecosystem.cli", *arguments, env=environment, **pipes
    )


async def ended(process):
    async with asyncio.timeout(PATIENCE_S):
        return await process.wait()


def order(**changes):
    return {"customerId": 1, "product": "mug", "quantity": 1, "price": 1, **changes}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_a_worker_gracefully(deployment: Deployment, environment, number):
    async with running(deployment, environment) as (process, worker):
        await deployment.send(WAREHOUSE_INVENTORY, *stock())
        status, posted = await deployment.post(worker, **order())
        assert status == 201
        await deployment.outcome(worker, posted["id"])
        waiter = asyncio.create_task(deployment.ask(worker, "GET", "/v1/orders/never?timeout=60000"))
        await until(lambda: requests_in_flight(deployment, worker, 2), "waiting")

        process.send_signal(number)

        answer = await waiter
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert await ended(process) == 0
        assert not is_open(int(environment["HTTP_PORT"]))


async def test_a_worker_stops_while_the_broker_is_unavailable(deployment: Deployment, environment):
    nowhere = environment | {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_ports(1)[0]}"}
    process = await orders(nowhere, "run", *CORE, stderr=asyncio.subprocess.DEVNULL)
    worker = Remote(f"http://127.0.0.1:{environment['HTTP_PORT']}")
    try:
        await until(lambda: is_open(int(environment["HTTP_PORT"])), "served")
        assert (await deployment.ask(worker, "GET", "/healthz")).status == 200
        assert (await deployment.ask(worker, "GET", "/readyz")).status == 503
        assert (await deployment.ask(worker, "GET", "/v1/orders/any?timeout=100")).status == 503
        assert (await deployment.ask(worker, "POST", "/v1/orders", json=order())).status == 503

        process.send_signal(signal.SIGTERM)

        assert await ended(process) == 0
    finally:
        if process.returncode is None:
            process.kill()


async def test_a_killed_worker_restarts_with_all_acknowledged_orders_and_no_duplicates(
    deployment: Deployment, environment
):
    taken = []

    async def client(worker, name):
        for number in range(10_000):
            status, body = await deployment.post(worker, **order(id=f"{name}-{number}"))
            assert status == 201, body
            taken.append(body["id"])

    async with running(deployment, environment) as (process, worker):
        await deployment.send(WAREHOUSE_INVENTORY, *stock())
        clients = [asyncio.create_task(client(worker, name)) for name in "abcdefgh"]
        await until(lambda: len(taken) >= 200, "posted")
        process.kill()
        await ended(process)
        assert all(isinstance(e, aiohttp.ClientError) for e in await asyncio.gather(*clients, return_exceptions=True))

    async with running(deployment, environment) as (process, worker):
        outcomes = await asyncio.gather(*(deployment.outcome(worker, order_id) for order_id in taken))
        # Orders without an acknowledgement may also be in the topic.
        await until(lambda: every_order_decided(deployment), "all decided")
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0

    assert {o["id"] for o in outcomes} == set(taken)
    states = Counter((o.id, o.state.decided) for o in await deployment.values(ORDERS))
    assert set(states.values()) == {1}, "created once, decided once"
    verdicts = Counter((v.order_id, v.check_type) for v in await deployment.values(ORDER_VALIDATIONS))
    assert set(verdicts.values()) == {1}
    assert len(verdicts) == 3 * len({order_id for order_id, _ in states})


async def test_a_second_worker_with_the_same_state_directory_is_refused(deployment: Deployment, environment):
    async with running(deployment, environment) as (_, worker):
        second = await orders(environment, "run", *CORE, "--port", "0", stderr=asyncio.subprocess.PIPE)
        _, said = await second.communicate()

        assert second.returncode == 1
        assert b"STATE_DIR" in said
        assert (await deployment.ask(worker, "GET", "/readyz")).status == 200


async def test_a_worker_rejected_by_its_group_ends_with_the_reason(environment):
    """Uses a session timeout above the broker's limit. Missing rights for the group have the same effect."""
    process = await orders(environment | {"SESSION_TIMEOUT_S": "36000"}, "run", *CORE, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(PATIENCE_S):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()

    assert process.returncode == 1
    assert b"InvalidSessionTimeout" in said


async def test_generate_posts_orders_and_reports_their_outcomes(deployment: Deployment, environment, apart):
    front = await deployment.start_core(apart=apart, orders=2)
    await deployment.stock(**{level.product: level.count for level in stock()})
    urls = [part for worker in front for part in ("--url", str(worker.url.origin()))]

    core = ("--no-payments", "--no-checkins", "--no-products")
    process = await orders(
        environment, "generate", "--count", "20", "--rate", "20", *core, *urls, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()

    assert process.returncode == 0, said
    assert b"20 posted" in said
    assert b"0 mismatches" in said
    posted = {o.id for o in await deployment.values(ORDERS)}
    assert len(posted) == 20
    assert {o.id for o in await deployment.values(ORDERS) if o.state.decided} == posted


async def posted_and_all_but_the_last_removed(deployment: Deployment, *ids):
    """Posts orders and deletes all but the last of each partition. Returns the remaining and the deleted ones."""
    last = {}
    for id_ in ids:
        value = Order(id=id_, customer_id=1, product="mug", quantity=1, price=1).to_json()
        sent = await deployment.send_raw(ORDERS.name, id_.encode(), value)
        last[sent.partition] = id_, sent.offset
    client = AIOKafkaAdminClient(bootstrap_servers=deployment.servers)
    await client.start()
    try:
        await client.delete_records(
            {Physical(deployment.prefix + ORDERS.name, p): RecordsToDelete(offset) for p, (_, offset) in last.items()}
        )
    finally:
        await client.close()
    left = {id_ for id_, _ in last.values()}
    return left, set(ids) - left


@pytest.mark.parametrize("on_lost_records", ["continue", "stop"])
async def test_a_worker_reports_records_deleted_while_it_was_suspended(
    deployment: Deployment, environment, on_lost_records
):
    environment = environment | {"ON_LOST_RECORDS": on_lost_records, "SESSION_TIMEOUT_S": "30"}
    log = deployment.folder / "log"
    with log.open("wb") as stderr:
        process = await orders(environment, "run", *CORE, stderr=stderr)
    worker = Remote(f"http://127.0.0.1:{environment['HTTP_PORT']}")

    def ready():
        return is_ready(deployment, worker, process)

    try:
        await until(ready, "ready")
        await deployment.send(WAREHOUSE_INVENTORY, *stock())
        await deployment.send_raw(
            ORDERS.name, b"first", Order(id="first", customer_id=1, product="mug", quantity=1, price=1).to_json()
        )
        await deployment.outcome(worker, "first")
        process.send_signal(signal.SIGSTOP)
        left, gone = await posted_and_all_but_the_last_removed(deployment, *(f"late-{n}" for n in range(60)))
        process.send_signal(signal.SIGCONT)
        if on_lost_records == "stop":
            assert await ended(process) == 1
            again = await orders(environment, "run", *CORE, stderr=asyncio.subprocess.PIPE)
            _, said = await again.communicate()
            assert again.returncode == 1
            assert b"To continue without these records set ON_LOST_RECORDS=continue" in said
            assert b"Traceback" not in said
        else:
            for id_ in left:
                await deployment.outcome(worker, id_)
            await until(ready, "ready again")
            metrics = (await deployment.ask(worker, "GET", "/metrics")).body.decode()
            assert 'faust_orders_lost_records_total{topic="orders"}' in metrics
            seen = {o.id for o in await deployment.values(ORDERS)}
            assert gone - seen, "some may have been on their way when it fell asleep"
        assert "records lost topic=orders" in log.read_text()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def every_order_decided(deployment: Deployment):
    """Whether all verdicts of the order are in the topic, also late ones."""
    seen = await deployment.values(ORDERS)
    verdicts = Counter(v.order_id for v in await deployment.values(ORDER_VALIDATIONS))
    return all(verdicts[o.id] >= 3 for o in seen) and {o.id for o in seen} == {o.id for o in seen if o.state.decided}


async def requests_in_flight(deployment: Deployment, worker, count):
    """Whether `count` requests are in flight, including this one."""
    metrics = (await deployment.ask(worker, "GET", "/metrics")).body.decode()
    return f"faust_orders_http_requests_in_flight {float(count)}" in metrics
