"""The example of a validator in a package of its own: installed by pip, run on a real Kafka beside the others."""

import asyncio
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
from contextlib import asynccontextmanager

import pytest

from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY
from tests.environments import ROOT, Environment
from tests.integration.test_up import HTTP_PORTS, Up
from tests.integration.test_up import environment as environment_of_up
from tests.workers import PATIENCE_S, Deployment, Remote, until

CHECK = "CREDIT_CHECK"
CORE = ("orders", "fraud", "inventory", "details")
REQUIRED = "FRAUD_CHECK,INVENTORY_CHECK,ORDER_DETAILS_CHECK,CREDIT_CHECK"
OPERATIONS = {"credit.receive.orders", "credit.send.order-validations", "credit.send.orders.dead-letters"}
REASON = "the order comes to 501.00 EUR, the customer's credit limit is 500.00 EUR"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    package = shutil.copytree(ROOT / "examples/credit_check", folder / "credit_check")
    environment = Environment(folder / "venv")
    environment.install(package)
    return environment


@pytest.fixture
def worker(environment, deployment: Deployment):
    """Runs a worker of `orders run` with these services; yields what `Deployment` needs of it."""

    @asynccontextmanager
    async def run(*names, **variables):
        mine = {
            "KAFKA_BOOTSTRAP_SERVERS": deployment.servers,
            "TOPIC_PREFIX": deployment.prefix,
            "STATE_DIR": str(deployment.folder / "-".join(names)),
            **variables,
        }
        command = [environment.bin / "orders", "run", *names, "--port", "0"]
        process = await asyncio.create_subprocess_exec(*command, env=os.environ | mine, stdout=-1, stderr=-2)
        said = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not (found := re.search(r"http://[\w.]+:\d+", said[-1] if said else "")):
                    line = (await process.stdout.readline()).decode()
                    assert line, "".join(said)
                    said.append(line)
            rest = asyncio.create_task(process.stdout.read())
            yield Remote(found[0])
        finally:
            process.terminate()
            async with asyncio.timeout(PATIENCE_S):
                await process.wait()
                await rest

    return run


def test_the_commands_find_it(environment):
    said = environment.orders("run", "--help")
    assert re.search(r"^  credit +CREDIT_CHECK: fails orders above the credit limit", said, re.MULTILINE)
    assert "`CREDIT_LIMIT`" in environment.orders("settings")


def test_the_asyncapi_document_has_it_as_a_sender_of_verdicts(environment):
    document = json.loads(environment.orders("asyncapi"))
    without = json.loads((ROOT / "docs/asyncapi.json").read_text("utf-8"))
    assert document["channels"].keys() == without["channels"].keys()
    assert document["operations"].keys() - without["operations"].keys() == OPERATIONS


async def test_its_verdict_is_shown_and_fails_orders_once_it_is_required(environment, worker, deployment: Deployment):
    async with worker(*CORE, "credit", CREDIT_LIMIT="500", UNKNOWN_PRODUCTS="pass") as running:
        numbers = itertools.count()

        async def outcome(price, state, required):
            """The outcome of a new order; nothing unless it has this state, with the check required or not."""
            name = f"o-{next(numbers)}"
            await deployment.post(running, id=name, customerId=next(numbers), product="mug", quantity=1, price=price)
            found = await deployment.outcome(running, name)
            return found if (found["state"], CHECK in found["required"]) == (state, required) else None

        async def verdict(order_id):
            """The verdict on a decided order: the order may be decided before it comes."""
            _, found = await deployment.get(running, order_id, "validated")
            return next((v["validationResult"] for v in found["verdicts"] if v["checkType"] == CHECK), None)

        await deployment.send(WAREHOUSE_INVENTORY, StockLevel(product="mug", count=1000))
        before = await until(lambda: outcome(501, "VALIDATED", False), "validated, once there is stock")
        assert await until(lambda: verdict(before["id"]), "verdict") == "FAIL"

        where = {"KAFKA_BOOTSTRAP_SERVERS": deployment.servers, "TOPIC_PREFIX": deployment.prefix}
        assert CHECK in await asyncio.to_thread(environment.orders, "checks", "add", CHECK, **where)
        above = await until(lambda: outcome(501, "FAILED", True), "failed, once the check is required")
        assert above["reasons"] == [f"{CHECK}: {REASON}"]
        within = await until(lambda: outcome(500, "VALIDATED", True), "validated, with the check required")
        assert await verdict(within["id"]) == "PASS"

        asyncapi = (await deployment.ask(running, "GET", "/asyncapi.json")).json()
        assert asyncapi["operations"].keys() >= OPERATIONS
        openapi = (await deployment.ask(running, "GET", "/openapi.json")).json()
        tags = {tag for path in openapi["paths"].values() for operation in path.values() for tag in operation["tags"]}
        assert tags == {"operation", "orders"}, "a validator has no endpoints"


def test_orders_up_runs_it(environment, tmp_path):
    command = [environment.bin / "orders", "up", "--port", str(random.choice(HTTP_PORTS))]
    variables = environment_of_up(tmp_path) | {"REQUIRED_CHECKS": REQUIRED, "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=variables, text=True, **pipes) as process:
        running = Up(process)
        try:
            running.heard("Ready after")
            post = [environment.bin / "orders", "post", "--product", "mug", "--price", "12", "--timeout", "60000"]
            said = [
                subprocess.run([*post, "--quantity", quantity], env=variables, capture_output=True, text=True).stdout
                for quantity in ("83", "84")
            ]
        finally:
            process.send_signal(signal.SIGINT)
            running.end()
    assert "VALIDATED" in said[0]
    assert "FAILED" in said[1]
    assert "the order comes to 1008.00 EUR, the customer's credit limit is 1000.00 EUR" in " ".join(said[1].split())
