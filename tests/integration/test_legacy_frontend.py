"""`examples/legacy` on a real Kafka and PostgreSQL: the demonstration, and a frontend worker killed in its commits."""

import asyncio
import os
import signal
import sys
from decimal import Decimal

import asyncpg
from rich.console import Console

from examples.legacy.demonstration import demonstrate
from runtime.kafka.topics import ensure_topics, public_topics
from schemas.messages import Customer, Order, OrderState
from schemas.topics import CUSTOMERS, DEAD_LETTERS, ORDERS
from tests.workers import PATIENCE_S, until

LIVES = ("sink.written=crash", "sink.committed=crash", "")
"""Where the worker of each life ends by SIGKILL; the last one does not."""


async def test_the_demonstration_finds_everything_where_it_should_be(deployment, new_database, tmp_path):
    checks = await demonstrate(deployment.settings(), new_database(), new_database(), tmp_path, Console(stderr=True))
    assert [(check.name, check.found, check.expected) for check in checks if not check.passed] == []
    assert min(check.count for check in checks) > 10


def order(number, state):
    return Order(id=f"o-{number}", customer_id=number, product="mug", quantity=2, price=Decimal(3), state=state)


async def start(deployment, url, fail_point):
    own = {
        "KAFKA_BOOTSTRAP_SERVERS": deployment.servers,
        "TOPIC_PREFIX": deployment.prefix,
        "LEGACY_FRONTEND_DATABASE_URL": url,
        "HTTP_PORT": "0",
        "STATE_DIR": str(deployment.folder / "state"),
        "SESSION_TIMEOUT_S": "2",
        "HEARTBEAT_INTERVAL_S": "0.5",
        "FAIL_POINTS": fail_point,
    }
    arguments = ("-m", "examples.legacy", "frontend")
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, env=os.environ | own, stderr=-3)


async def test_the_frontend_has_the_last_state_of_each_order_although_its_worker_is_killed(deployment, database_url):
    await ensure_topics(deployment.settings(), public_topics())
    states = [OrderState.CREATED, OrderState.VALIDATED, OrderState.SHIPPED]
    customer = Customer(id=1, first_name="Ada", last_name="Hill", email="a@example.org", address="x", level="gold")
    other = customer.model_copy(update={"id": 2, "level": "odd"})
    for state, fail_point in zip(states, LIVES, strict=True):
        await deployment.send(CUSTOMERS, customer, other, customer.model_copy(update={"id": 3}))
        await deployment.send(ORDERS, *[order(number, state) for number in range(50)])
        if state is OrderState.VALIDATED:
            await deployment.send_raw(ORDERS.name, b"o-3", b'{"id": "o-3"}')
            customer = customer.model_copy(update={"first_name": "Zoë"})
        if state is OrderState.SHIPPED:
            await deployment.send_raw(CUSTOMERS.name, b"3", None)
        process = await start(deployment, database_url, fail_point)
        if fail_point:
            async with asyncio.timeout(PATIENCE_S):
                assert await process.wait() == -signal.SIGKILL

    connection = await asyncpg.connect(database_url)

    async def stored():
        orders = await connection.fetch("SELECT order_no, status, amount FROM frontend_orders")
        return {row["order_no"]: (row["status"], row["amount"]) for row in orders}

    try:
        await until(lambda: _equals(stored(), {f"o-{n}": ("S", Decimal(6)) for n in range(50)}), "all orders shipped")
        expected = [("Zoë Hill", "G"), ("Ada Hill", "B")]

        async def customers():
            rows = await connection.fetch("SELECT name, class FROM frontend_customers ORDER BY customer_no")
            return [tuple(row) for row in rows]

        await until(lambda: _equals(customers(), expected), "customers")
        moved = await connection.fetchval("SELECT sum(next_offset) FROM sink_offsets WHERE topic = 'orders'")
        assert moved == 151
    finally:
        await connection.close()
        process.terminate()
        await process.wait()
    [letter] = await deployment.records(ORDERS.name + DEAD_LETTERS)
    assert dict(letter.headers)["service"] == b"legacy-frontend"
    assert b"customerId is missing" in dict(letter.headers)["error"]


async def _equals(found, expected):
    return await found == expected
