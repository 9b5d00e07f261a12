"""Product subscribers as processes: a killed one delays no other, and catches up."""

import asyncio
import itertools
import os
import secrets
import sys

import aiohttp
import asyncpg
import pytest

from ecosystem.embedded.ports import free_ports
from schemas.messages import ProductAlertKind
from schemas.topics import PRODUCT_ALERTS, PRODUCTS
from tests.letters import Mailbox, serving
from tests.workers import Deployment, Remote, until
from validators.details.state import OFFERS as KNOWN_TO_DETAILS
from validators.inventory.state import OFFERS as KNOWN_TO_INVENTORY

SUBSCRIBERS = ("product-monitoring", "product-log", "product-security", "product-notifications", "inventory", "details")


class Shop:
    """The product service and its subscribers, each a process."""

    def __init__(self, deployment: Deployment, environment, mailbox):
        self.deployment = deployment
        self.mailbox = mailbox
        self.environment = environment
        self.processes = {}
        self.urls = {}
        self.spoilt = 0
        self._codes = itertools.count(1)

    async def start(self, name):
        [port] = free_ports(1)
        mine = {"HTTP_PORT": str(port), "STATE_DIR": str(self.deployment.folder / name)}
        self.urls[name] = Remote(f"http://127.0.0.1:{port}")
        command = [sys.executable, "-m", "ecosystem.cli", "run", name]
        self.processes[name] = await asyncio.create_subprocess_exec(*command, env={**self.environment, **mine})

    async def kill(self, name):
        self.processes[name].kill()
        await self.processes[name].wait()

    async def ask(self, name, method, path, **options):
        return await self.deployment.ask(self.urls[name], method, path, **options)

    async def offer_and_spoil(self):
        """Adds a product and lowers its price to a hundredth."""
        code = f"p{next(self._codes)}"
        made = await self.ask("products", "POST", "/v1/products", json={"code": code, "name": "Mug", "price": 100})
        spoilt = await self.ask("products", "PUT", f"/v1/products/{code}", json={"name": "Mug", "price": 1})
        assert (made.status, spoilt.status) == (201, 200)
        self.spoilt += 1
        return code

    async def knows(self, name, code):
        """Whether a subscriber has processed both changes of a product."""
        match name:
            case "product-monitoring":
                totals = (await self.ask(name, "GET", "/v1/monitoring/products")).json()
                return (totals.get("created"), totals.get("updated")) == (self.spoilt + 1, self.spoilt)
            case "product-log":
                entries = (await self.ask(name, "GET", f"/v1/product-log/{code}")).json().get("entries", [])
                return [e["version"] for e in entries] == [1, 2]
            case "product-security":
                return code in [a.code for a in await self.deployment.values(PRODUCT_ALERTS)]
            case "product-notifications":
                events = {e.event_id for e in await self.deployment.values(PRODUCTS) if e.code == code}
                return len(events) == 2 and events <= {letter["X-Event-Id"] for letter in self.mailbox.letters}
            case _:
                known = KNOWN_TO_DETAILS if name == "details" else KNOWN_TO_INVENTORY
                row = (await self.deployment.rows(known.table)).get(code)
                return row is not None and row.version == 2


@pytest.fixture(scope="module")
async def shop(kafka, postgres, tmp_path_factory):
    mailbox, [smtp] = Mailbox(), free_ports(1)
    names = [f"t_{secrets.token_hex(4)}" for _ in range(2)]
    products, log = (postgres.database(name) for name in names)
    prefix, folder = f"t-{secrets.token_hex(4)}-", tmp_path_factory.mktemp("subscribers")
    with serving(mailbox, smtp):
        async with Deployment(kafka, prefix, folder) as deployment:
            environment = {
                **{k: v for k, v in os.environ.items() if k not in {"PRODUCTS_URL", "ORDERS_DATA"}},
                "KAFKA_BOOTSTRAP_SERVERS": deployment.servers,
                "TOPIC_PREFIX": deployment.prefix,
                "SESSION_TIMEOUT_S": "6",
                "HEARTBEAT_INTERVAL_S": "0.5",
                "DATABASE_TIMEOUT_S": "30",
                "PRODUCTS_DATABASE_URL": products,
                "PRODUCT_LOG_DATABASE_URL": log,
                "PRODUCT_NOTIFICATIONS_TO": "shop@example.org",
                "SMTP_PORT": str(smtp),
            }
            shop = Shop(deployment, environment, mailbox)
            shop.log_url = log  # type: ignore[attr-defined]
            try:
                for name in ("products", *SUBSCRIBERS):
                    await shop.start(name)
                for name in ("products", *SUBSCRIBERS):
                    await until(lambda name=name: _ready(shop, name), f"{name} ready", every=0.2)
                await until(lambda: _offered(shop), "database", every=0.2)
                yield shop
            finally:
                for process in shop.processes.values():
                    if process.returncode is None:
                        process.kill()
                    await process.wait()
    for name in names:
        postgres.drop(name)


async def _ready(shop, name):
    try:
        return (await shop.ask(name, "GET", "/readyz")).status == 200
    except (OSError, aiohttp.ClientError):
        return False


async def _offered(shop):
    body = {"code": "first", "name": "First", "price": 1}
    return (await shop.ask("products", "POST", "/v1/products", json=body)).status in {200, 201}


@pytest.mark.parametrize("away", SUBSCRIBERS)
async def test_a_killed_subscriber_delays_no_other_and_catches_up(shop, away):
    await shop.kill(away)
    code = await shop.offer_and_spoil()
    for name in SUBSCRIBERS:
        if name != away:
            await until(lambda name=name: shop.knows(name, code), f"{name} knows {code}", every=0.1)
    await shop.start(away)
    await until(lambda: _knows_again(shop, away, code), f"{away} has caught up", every=0.2)


async def _knows_again(shop, name, code):
    try:
        return await shop.knows(name, code)
    except (OSError, aiohttp.ClientError):
        return False


async def test_each_change_and_each_alert_is_one_email(shop):
    code = await shop.offer_and_spoil()
    letters = await until(lambda: _letters(shop, code, 3), "emails")
    assert {letter["Subject"] for letter in letters} == {
        f"Product {code}: created",
        f"Product {code}: updated",
        f"Product {code}: its price fell suspiciously",
    }
    assert {letter["To"] for letter in letters} == {"shop@example.org"}
    [alert] = [a for a in await shop.deployment.values(PRODUCT_ALERTS) if a.code == code]
    assert alert.kind is ProductAlertKind.PRICE_DROP
    [about] = [letter for letter in letters if letter["X-Event-Id"] == alert.event_id]
    assert "the price fell from 100.00 to 1.00, by more than 90 %" in about.get_content()
    # A worker killed between the server's answer and its commit sends that e-mail again.
    assert len({letter["Message-ID"] for letter in letters}) == len(letters) == 3


def _letters(shop, code, count):
    found = [letter for letter in shop.mailbox.letters if letter["Subject"].startswith(f"Product {code}:")]
    return found if len(found) >= count else None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE product_log SET price = 0",
        "UPDATE product_log SET price = 0 WHERE false",
        "DELETE FROM product_log",
        "TRUNCATE product_log",
        "SET session_replication_role = replica; DELETE FROM product_log",
        """
        INSERT INTO product_log (event_id, kind, code, name, price, version, at)
        SELECT event_id, kind, code, name, 0, version, at FROM product_log
        ON CONFLICT (event_id) DO UPDATE SET price = 0
        """,
    ],
)
async def test_the_database_rejects_changes_of_the_log(shop, statement):
    await shop.offer_and_spoil()
    connection = await asyncpg.connect(shop.log_url)
    try:
        everything = "SELECT * FROM product_log ORDER BY id"
        before = await until(lambda: connection.fetch(everything), "something logged")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
        assert (await connection.fetch(everything))[: len(before)] == before
    finally:
        await connection.close()


async def test_an_unknown_log_entry_is_not_found(shop):
    answer = await shop.ask("product-log", "GET", "/v1/product-log/nothing")
    assert answer.status == 404
    assert "No change of a product" in answer.json()["detail"]


async def test_the_totals_can_be_read(shop):
    answer = await shop.ask("product-monitoring", "GET", "/v1/monitoring/products")
    totals = answer.json()
    assert answer.status == 200
    assert totals["withdrawn"] == totals["gaps"] == 0
    assert totals["onOffer"] == totals["created"]
