"""`orders pay`, `orders customers` and `orders tail` as their users meet them, on a real Kafka."""

import asyncio
import os
import re
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from ecosystem.services import CORE
from fulfilment_service.state import PROGRESS
from orders_service.state import ORDERS_VIEW
from schemas.topics import CATALOGUE, CUSTOMERS, PAYMENTS
from tests.workers import PATIENCE_S, Deployment, until

GOLDEN = Path(__file__).parents[1] / "unit" / "golden"


@pytest.fixture
def orders(deployment: Deployment):
    """Runs `orders` in the deployment; exit code and all it says."""

    async def run(*arguments, **more):
        mine = {"KAFKA_BOOTSTRAP_SERVERS": deployment.servers, "TOPIC_PREFIX": deployment.prefix, **more}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ecosystem.cli", *arguments, env=os.environ | mine, stdout=-1, stderr=-2
        )
        async with asyncio.timeout(PATIENCE_S):
            said, _ = await process.communicate()
        return process.returncode, said.decode()

    return run


@pytest.fixture
async def pay(deployment: Deployment, orders):
    worker = await deployment.start(*CORE, "fulfilment")
    await deployment.stock(JUMPERS=10)

    async def run(*arguments):
        return await orders("pay", *arguments, FULFILMENT_URL=str(worker.url))

    run.worker = worker  # type: ignore[attr-defined]
    return run


async def test_pay_sends_the_missing_amount_by_default(deployment: Deployment, pay):
    order = {"id": "o1", "customerId": 1, "product": "JUMPERS", "quantity": 2, "price": 12.5}
    code, said = await pay("o1")
    assert (code, "There is no order 'o1' (yet)" in said) == (1, True)

    code, said = await pay("o1", "--amount", "10")
    assert (code, "Missing before it is shipped: VALIDATED, PAID, CHECKED_IN" in said) == (0, True)
    await deployment.post(pay.worker, **order)
    assert (await deployment.outcome(pay.worker, "o1"))["state"] == "VALIDATED"
    code, said = await pay("o1")
    assert (code, "Missing before it is shipped: CHECKED_IN" in said) == (0, True), said
    assert await pay("o1") == (0, "o1 is paid already\n")

    payments = await deployment.values(PAYMENTS)
    assert sorted((p.order_id, p.amount, p.ccy) for p in payments) == [("o1", Decimal(10), "EUR"), ("o1", 15, "EUR")]
    received = (await deployment.rows(PROGRESS))["o1"].received
    assert (received.sum("EUR"), received.counted) == (25, 2)


async def test_pay_refuses_a_failed_order_without_an_amount(deployment: Deployment, pay):
    await deployment.post(pay.worker, id="o2", customerId=1, product="NONE", quantity=2, price=12.5)
    assert (await deployment.outcome(pay.worker, "o2"))["state"] == "FAILED"
    code, said = await pay("o2")
    assert (code, "o2 has FAILED: nothing is due" in said) == (1, True)
    code, said = await pay("o2", "--amount", "1", "--ccy", "THB")
    assert (code, "1.00 THB for o2" in said, "The payment does not count: orders are in EUR." in said) == (
        0,
        True,
        True,
    ), said
    assert [(p.amount, p.ccy) for p in await deployment.values(PAYMENTS)] == [(1, "THB")]


async def test_customers_are_added_and_imported(deployment: Deployment, orders, tmp_path):
    named = ("--first-name", "Franz", "--last-name", "Kafka", "--address", "Praha", "--email", "franz@example.org")
    assert (await orders("customers", "add", "15", *named))[0] == 0
    path = tmp_path / "customers.csv"
    rows = [f"{n},F{n},L{n},{n}@example.org,A{n},silver" for n in range(16, 2016)]
    path.write_text("\n".join(["id,firstName,lastName,email,address,level", *rows]))
    assert await orders("customers", "import", str(path)) == (0, "2000 customers\n")
    path.write_text("\n".join(["id,firstName,lastName,email,address,level", "9999,A,B,a@example.org,C,", "x,,,,,"]))
    code, said = await orders("customers", "import", str(path))
    assert (code, f"{path}:3: id must be a whole number" in said) == (1, True)

    found = {customer.id: customer for customer in await deployment.values(CUSTOMERS)}
    assert sorted(found) == list(range(15, 2016)), "nothing of the file with a fault was written"
    assert (found[15].level, found[16].level, found[2015].email) == ("bronze", "silver", "2015@example.org")


async def test_tail_prints_one_line_per_message_of_every_topic(deployment: Deployment, orders):
    await deployment.start(*CORE)  # makes its topics; the others follow with the first customer
    named = ("--first-name", "Franz", "--last-name", "Kafka", "--address", "Praha", "--email", "franz@example.org")
    await orders("customers", "add", "15", *named)
    for topic in CATALOGUE:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", topic.model.__name__).lower()
        await deployment.send(topic, topic.model.from_json((GOLDEN / f"{name}.json").read_bytes()))

    code, said = await orders("tail", "--no-follow")
    assert code == 0
    by_topic = {words[1]: line for line in said.splitlines() if (words := line.split())}
    assert {topic.name for topic in CATALOGUE} <= set(by_topic)
    assert [line for line in by_topic.values() if "{" in line] == []

    await until(lambda: deployment.rows(ORDERS_VIEW), "the order is in the view")
    code, said = await orders("tail", "orders-view-changelog", "--no-follow")
    assert (code, '{"order":{"id":' in said) == (0, True), said
    code, said = await orders("tail", "order", "--no-follow")
    assert (code, "no such topic: order. There are: orders, " in said) == (1, True), said
