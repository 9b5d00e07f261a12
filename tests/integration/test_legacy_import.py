"""`orders import --follow` on a real Kafka and PostgreSQL: killed again and again, every row is imported once."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from itertools import count
from random import Random

import asyncpg
import pytest

from schemas.topics import DEAD_LETTERS, PAYMENTS, WAREHOUSE_INVENTORY
from tests.commands import orders
from tests.workers import PATIENCE_S, until

PAYMENTS_MAPPING = """
name = "pay"
topic = "payments"
source = { kind = "csv", files = "pay*.csv", separator = ";" }

[fields]
id = "NO"
orderId = "ORDER"
amount = { column = "AMOUNT", comma = true }
ccy = { constant = "EUR" }
"""
STOCK_MAPPING = """
name = "stock"
topic = "warehouse-inventory"
source = { kind = "table", table = "stock" }

[fields]
product = "article"
count = "pieces"
"""
LIVES = ("import.sent=crash@3", "import.committed=crash@3", "import.sent=crash", "import.committed=crash@2", "")
"""Where a process of each life ends by SIGKILL; the last one does not."""
ROWS_PER_LIFE = 2000


class Import:
    """`orders import --follow` as a process that can be killed."""

    def __init__(self, deployment, mapping, url=""):
        self.arguments = ["import", str(mapping), "--follow"]
        own = {"KAFKA_BOOTSTRAP_SERVERS": deployment.servers, "TOPIC_PREFIX": deployment.prefix}
        self.env = os.environ | own | {"IMPORT_DATABASE_URL": url}
        self.log = mapping.with_suffix(".log")

    async def start(self, fail_point=""):
        env = self.env | {"FAIL_POINTS": fail_point}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ecosystem.cli", *self.arguments, env=env, stdout=log, stderr=log
            )

    async def killed(self):
        """Waits until the process has been killed."""
        async with asyncio.timeout(PATIENCE_S):
            assert await self.process.wait() == -signal.SIGKILL, self.log.read_text()

    async def kill(self):
        self.process.kill()
        await self.process.wait()

    async def stop(self):
        self.process.send_signal(signal.SIGTERM)
        await self.process.wait()


@contextlib.asynccontextmanager
async def killed_afterwards(process):
    try:
        yield
    finally:
        if process.process.returncode is None:
            await process.kill()


async def committed(deployment, topic):
    """Committed records of a topic; none if it does not exist yet."""
    async with deployment.consumer() as consumer:
        topics = await consumer.topics()
    return await deployment.records(topic) if deployment.prefix + topic in topics else []


async def grows(deployment, topic, number):
    """Waits until a topic has this many committed records."""

    async def reached():
        return len(await committed(deployment, topic)) >= number

    await until(reached, f"{number} records of {topic}", every=0.1)


async def test_each_line_of_an_export_is_imported_once_although_the_import_is_killed(deployment, tmp_path):
    mapping = tmp_path / "pay.toml"
    mapping.write_text(PAYMENTS_MAPPING)
    export = tmp_path / "pay-1.csv"
    export.write_text("NO;ORDER;AMOUNT\n")
    process, wanted, bad = Import(deployment, mapping), [], []
    async with killed_afterwards(process):
        for fail_point in LIVES:
            await process.start(fail_point)
            with export.open("a") as file:
                for number in range(len(wanted) + len(bad), len(wanted) + len(bad) + ROWS_PER_LIFE):
                    if number % 50 == 7:
                        bad.append(number + 2)
                        file.write(f"{number};o-{number};cheap\n")
                    else:
                        wanted.append(f"p-{number}")
                        file.write(f"p-{number};o-{number};{number},50\n")
                    if number % 500 == 0:
                        file.flush()
                        await asyncio.sleep(0)
            if fail_point:
                await process.killed()
        await grows(deployment, PAYMENTS.name, len(wanted))
        await grows(deployment, PAYMENTS.name + DEAD_LETTERS, len(bad))
        await process.stop()

    assert [p.id for p in sorted(await deployment.values(PAYMENTS), key=lambda p: p.amount)] == wanted
    letters = await deployment.records(PAYMENTS.name + DEAD_LETTERS)
    said = [dict(letter.headers)["error"].decode() for letter in letters]
    reason = "amount (column AMOUNT) must be an amount such as 9.90, in plain digits"
    assert sorted(said) == sorted(f"pay-1.csv:{line}: {reason}" for line in bad)
    again = await orders(deployment, "import", str(mapping))
    assert again == (0, "0 rows imported, 0 dead-lettered\n")


async def test_another_process_of_the_same_import_fences_the_first(deployment, tmp_path):
    mapping = tmp_path / "pay.toml"
    mapping.write_text(PAYMENTS_MAPPING)
    export = tmp_path / "pay.csv"
    export.write_text("NO;ORDER;AMOUNT\np-1;o-1;1\n")
    first, second = Import(deployment, mapping), Import(deployment, mapping)
    await first.start()
    async with killed_afterwards(first):
        await grows(deployment, PAYMENTS.name, 1)
        await second.start()
        async with killed_afterwards(second):
            numbers = iter(range(2, 10_000))

            async def ended():
                with export.open("a") as file:
                    file.write(f"p-{(number := next(numbers))};o-{number};1\n")
                return first.process.returncode is not None

            await until(ended, "the first process ends", every=0.3)
            last = next(numbers) - 1
            await grows(deployment, PAYMENTS.name, last)
            await second.stop()
    assert "another process has begun the import pay" in first.log.read_text()
    assert Counter(p.id for p in await deployment.values(PAYMENTS)) == {f"p-{n}": 1 for n in range(1, last + 1)}


@pytest.fixture
async def legacy(database_url):
    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE TABLE stock (article text PRIMARY KEY, pieces numeric NOT NULL, shelf text)")
    yield connection
    await connection.close()


async def change(url, number, done):
    """A client of the legacy system: transactions of random length that commit in any order, on a few articles."""
    connection = await asyncpg.connect(url)
    random = Random(number)
    try:
        for round_ in count():
            async with connection.transaction():
                # Assigns the id of the transaction before it waits for the row, as legacy code may.
                await connection.execute("INSERT INTO stock VALUES ($1, $2)", f"own-{number}-{round_}", round_)
                await asyncio.sleep(random.uniform(0, 0.03))
                await connection.execute(
                    "INSERT INTO stock AS s VALUES ($1, 1) ON CONFLICT (article) DO UPDATE SET pieces = s.pieces + 1",
                    f"shared-{random.randrange(3)}",
                )
                await asyncio.sleep(random.choice([0, 0, 0, 0.7]))  # at times longer than until the next poll
            if done.is_set() and round_ > 2:
                return
    finally:
        await connection.close()


async def test_each_committed_change_of_a_table_is_imported_in_order_although_the_import_is_killed(
    deployment, tmp_path, database_url, legacy
):
    await legacy.execute("INSERT INTO stock VALUES ('old', 5), ('broken', -1)")
    mapping = tmp_path / "stock.toml"
    mapping.write_text(STOCK_MAPPING)
    code, said = await orders(deployment, "import", str(mapping), "--install", IMPORT_DATABASE_URL=database_url)
    assert (code, said) == (0, "")
    process = Import(deployment, mapping, database_url)
    async with killed_afterwards(process):
        done = asyncio.Event()
        clients = asyncio.gather(*(change(database_url, number, done) for number in range(1, 9)))
        for fail_point in LIVES:
            await process.start(fail_point)
            if fail_point:
                await process.killed()
        lost = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE '%import'"
        await until(lambda: _equals(legacy.fetchval(lost), 1), "a lost connection, after which the import goes on")
        done.set()
        await clients
        await legacy.execute("UPDATE stock SET shelf = 'A1' WHERE article = 'old'")  # no field of the message
        await legacy.execute("DELETE FROM stock WHERE article = 'own-1-1'")
        await legacy.execute("UPDATE stock SET article = 'renamed' WHERE article = 'own-1-2'")
        wanted = {row["article"]: int(row["pieces"]) for row in await legacy.fetch("SELECT * FROM stock")}
        del wanted["broken"]

        async def latest():
            rows = {}
            for record in await committed(deployment, WAREHOUSE_INVENTORY.name):
                rows[record.key.decode()] = record.value and WAREHOUSE_INVENTORY.model.from_json(record.value).count
            return {product: count for product, count in rows.items() if count is not None}

        await until(lambda: _equals(latest(), wanted), "all changes imported", every=0.2)
        await until(lambda: _equals(legacy.fetchval("SELECT count(*) FROM stock_orders_import"), 0), "an empty queue")
        await process.stop()

    counts = {}
    for level in await deployment.values(WAREHOUSE_INVENTORY):
        counts.setdefault(level.product, []).append(level.count)
    for number in range(3):
        product = f"shared-{number}"
        assert counts[product] == list(range(1, wanted[product] + 1)), "every change, in its order, once"
    assert counts["old"] == [5]
    [letter] = await deployment.records(WAREHOUSE_INVENTORY.name + DEAD_LETTERS)
    assert b"count (column pieces) must be at least 0" in dict(letter.headers)["error"]


async def _equals(found, expected):
    return await found == expected
