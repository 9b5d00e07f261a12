"""What every command does on a real ecosystem when its output cannot be written."""

import asyncio
import os
import sys

import pytest

from ecosystem.clients.webhooks import WebhooksApi
from ecosystem.services import DATABASES, NAMES
from schemas.webhooks import NewWebhook
from tests.unit.test_help import COMMANDS
from tests.workers import PATIENCE_S, Deployment, until

CUSTOMER = ["--first-name", "F", "--last-name", "K", "--email", "f@example.org", "--address", "Praha"]
ARGUMENTS = {
    ("stock", "set"): ["mug", "9"],
    ("post",): ["--id", "o1"],
    ("get",): ["o1"],
    ("watch",): ["o1", "--timeout", "0"],
    ("pay",): ["o1", "--amount", "1"],
    ("checkin",): ["o1"],
    ("cancel",): ["o1"],
    ("checks", "add"): ["FRAUD_CHECK"],
    ("checks", "list"): [],
    ("checks", "remove"): ["FRAUD_CHECK"],
    ("new-validator",): ["{product}"],
    ("settings",): [],
    ("generate",): ["--count", "1", "--rate", "100", "--no-products"],
    ("products", "add"): ["{product}", "Mug", "12"],
    ("products", "change"): ["{product}", "--price", "13"],
    ("products", "show"): ["{product}"],
    ("products", "withdraw"): ["{product}"],
    ("products", "import"): ["{folder}/products.csv"],
    ("customers", "add"): ["1", *CUSTOMER],
    ("customers", "import"): ["{folder}/customers.csv"],
    ("tail",): ["--no-follow"],
    ("topics",): [],
    ("asyncapi",): [],
    ("audit",): [],
    ("maintain",): ["--dry-run"],
    ("rebuild",): ["--discard"],
    ("import",): ["{folder}/stock.toml"],
    ("what-if",): ["--topics", "--processes", "1"],
    ("replay",): ["--all", "--dry-run"],
    ("backlog",): [],
    ("doctor",): [],
    ("timings",): [],
    ("list",): [],
    ("history",): ["o1"],
    ("explain",): ["o1"],
    ("webhooks", "add"): ["https://example.org/hooks", "order.failed"],
    ("webhooks", "list"): [],
    ("webhooks", "rotate"): ["{webhook}"],
    ("webhooks", "test"): ["{webhook}"],
    ("webhooks", "deliveries"): ["{webhook}"],
    ("webhooks", "remove"): ["{webhook}"],
    ("dead-letters", "list"): ["--json"],
    ("dead-letters", "summary"): [],
    ("dead-letters", "show"): ["orders", "{place}"],
    ("dead-letters", "redrive"): ["orders", "{place}"],
}
"""Of each command that writes to its output what makes it do so; in this order, each finds what it needs."""

STOCK = """\
name = "legacy-stock"
topic = "warehouse-inventory"
[source]
kind = "csv"
files = "stock.csv"
[fields]
product = "CODE"
count = "PIECES"
"""

BY_THEMSELVES = {("run",), ("up",)}
"""They go on until they are stopped: `test_up.py`, and below."""


def test_every_command_has_arguments_here():
    import click

    commands = {path for path, command in COMMANDS.items() if not isinstance(command, click.Group)}
    assert commands == ARGUMENTS.keys() | BY_THEMSELVES


@pytest.fixture
async def ecosystem(deployment: Deployment, new_database, tmp_path):
    """All services in one worker, a dead letter, files; the environment in which commands find it all."""
    databases = {name.lower(): new_database() for name in DATABASES.values()}
    worker = await deployment.start(*NAMES, webhook_keys="k" * 32, **databases)
    await deployment.send_raw("orders", b"o", b"no order")
    (tmp_path / "customers.csv").write_text("id,firstName,lastName,email,address\n1,F,K,f@example.org,Praha\n")
    (tmp_path / "products.csv").write_text("code,name,price\nkettle,Kettle,59.00\n")
    (tmp_path / "stock.csv").write_text("CODE,PIECES\nmug,9\n")
    (tmp_path / "stock.toml").write_text(STOCK)
    [letter, *_] = await until(lambda: deployment.records("orders.dead-letters"), "a dead letter", every=0.5)
    urls = {
        f"{name}_URL": str(worker.url)
        for name in ("ORDERS", "CHECKIN", "FULFILMENT", "PORTAL", "PRODUCTS", "HISTORY", "WEBHOOKS")
    }
    mine = {"KAFKA_BOOTSTRAP_SERVERS": deployment.servers, "TOPIC_PREFIX": deployment.prefix, **urls}
    mine |= {name: databases[name.lower()] for name in DATABASES.values()}
    return {"folder": tmp_path, "place": f"{letter.partition}@{letter.offset}"}, os.environ | mine


async def new_webhook(url):
    async with WebhooksApi(url) as api:
        return (await api.add(NewWebhook(url="https://example.org/hooks", events=["order.failed"]))).id


@pytest.fixture
def started(ecosystem):
    """Starts a command in the ecosystem."""
    names, env = ecosystem

    async def start(path, arguments, **files):
        product = f"made-for-{files['stdout']}"  # one that was withdrawn cannot be added again
        webhook = await new_webhook(env["WEBHOOKS_URL"]) if "{webhook}" in arguments else ""  # it can be removed once
        given = [argument.format(product=product, webhook=webhook, **names) for argument in arguments]
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ecosystem.cli", *path, *given, env=env, cwd=names["folder"], **files
        )

    return start


async def test_unwritable_output_ends_every_command(started):
    async def run(path, out):
        async with asyncio.timeout(PATIENCE_S):
            process = await started(path, ARGUMENTS[path], stdout=out, stderr=-1)
            said = (await process.communicate())[1].decode()
        return path, process.returncode, said

    reading, closed = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        quiet = [await run(path, closed) for path in ARGUMENTS]
        told = [await run(path, full) for path in ARGUMENTS]
    finally:
        os.close(closed)
        os.close(full)
    assert [result for result in quiet if result[1:] != (141, "")] == []
    why = "Error: cannot write to standard output: No space left on device\n"
    assert [result for result in told if result[1:] != (1, why)] == []


@pytest.mark.parametrize("path", [("tail",), ("generate",)])
async def test_an_endless_command_ends_when_its_reader_is_gone(started, path):
    more = {("tail",): ["--from-beginning"], ("generate",): ["--every", "1", "--no-products"]}[path]
    process = await started(path, more, stdout=-1, stderr=-1)
    async with asyncio.timeout(PATIENCE_S):
        assert await process.stdout.readline()
        process.stdout._transport.close()
        assert await process.wait() == 141
    assert await process.stderr.read() == b""


async def test_a_worker_ends_when_the_reader_of_its_log_is_gone(deployment: Deployment, tmp_path):
    """As in `orders run details 2>&1 | head -1`."""
    mine = {"KAFKA_BOOTSTRAP_SERVERS": deployment.servers, "TOPIC_PREFIX": deployment.prefix}
    mine |= {"HTTP_PORT": "0", "STATE_DIR": str(tmp_path / "state"), "LOG_LEVEL": "info"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ecosystem.cli", "run", "details", env=os.environ | mine, stdout=-1, stderr=-2
    )
    async with asyncio.timeout(PATIENCE_S):
        while b"worker started" not in await process.stdout.readline():
            assert process.returncode is None
        process.stdout._transport.close()
        assert await process.wait() == 141
