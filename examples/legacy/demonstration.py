"""Two days of a legacy office, in which every process is killed, and what has arrived on the other side."""

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
from rich.console import Console

from ecosystem.clients.reader import Reader
from ecosystem.clients.writer import Writer
from ecosystem.imports.importer import IMPORTED_FROM
from ecosystem.imports.mapping import TableSource
from ecosystem.imports.table import install_queue
from examples.legacy.children import MAPPINGS, Children
from examples.legacy.frontend import rows
from examples.legacy.office import TABLE, Office
from runtime.common.settings import Settings
from runtime.model.records import Record
from runtime.model.sink import SinkRecord
from schemas.topics import CUSTOMERS, ORDERS, PAYMENTS, WAREHOUSE_INVENTORY

_SEED = 11
_DAYS = (date(2026, 1, 30), date(2026, 1, 31))
_ROUNDS = 12
"""Times per day at which the office writes. In the middle all processes are killed."""
_PAUSE_S = 0.2
"""Seconds between them."""
_PATIENCE_S = 180.0
_POLL_S = 0.5
_SELECT_ORDERS = (
    "SELECT order_no, customer_no, status, article, pieces, amount, remark, changed_at FROM frontend_orders"
)
_SELECT_CUSTOMERS = "SELECT customer_no, name, email, class FROM frontend_customers"
_TARGETS = (PAYMENTS, CUSTOMERS, WAREHOUSE_INVENTORY)


class DemonstrationFailed(Exception):
    """A process has ended, or not everything has arrived in time."""


@dataclass(frozen=True, slots=True)
class Check:
    """What has arrived, and what should have."""

    name: str
    found: object
    expected: object
    count: int

    @property
    def passed(self) -> bool:
        return self.found == self.expected


async def demonstrate(
    settings: Settings, legacy_url: str, frontend_url: str, folder: Path, out: Console
) -> list[Check]:
    """Returns what has been checked at the end. Raises `DemonstrationFailed`.

    Arguments:
        settings: brokers, and a topic prefix without topics.
        legacy_url: of an empty database with the table of the office.
        frontend_url: of an empty database for the frontend.
        folder: for exports, mapping files and logs.
        out: for progress.
    """
    for name in MAPPINGS:
        shutil.copy(Path(__file__).parent / f"{name}.toml", folder)
    office = Office(folder / "exports", Random(_SEED))  # noqa: S311
    legacy = await asyncpg.connect(legacy_url)
    await legacy.execute(TABLE)
    await install_queue(TableSource(kind="table", table="stock"), legacy_url)
    names = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "TOPIC_PREFIX": settings.topic_prefix,
        "IMPORT_DATABASE_URL": legacy_url,
        "LEGACY_FRONTEND_DATABASE_URL": frontend_url,
    }
    async with Writer(settings) as writer:  # creates the topics, too
        children = Children(folder, names)
        children.start()
        try:
            for day in _DAYS:
                office.start(day)
                for round_ in range(_ROUNDS):
                    await _work(office, legacy, writer)
                    if round_ == _ROUNDS // 2:
                        await _wait_until_under_way(settings, frontend_url, children, day)
                        await _work(office, legacy, writer)
                        children.kill()
                        children.start()
                        out.print(f"{day}: imports and frontend worker killed and started again")
                    await asyncio.sleep(_PAUSE_S)
            checks = await _wait_until_arrived(settings, office, frontend_url, children)
        finally:
            children.stop()
            await legacy.close()
    return checks


async def _work(office: Office, legacy: Any, writer: Writer) -> None:
    office.export_payments(100)
    office.export_customers(50)
    await office.change_stock(legacy, 30)
    await writer.write(ORDERS, office.new_orders(30))


async def _wait_until_under_way(settings: Settings, url: str, children: Children, day: date) -> None:
    """Waits until rows of the day are imported, and the frontend has orders."""
    deadline = time.monotonic() + _PATIENCE_S
    of_day = f"exports/payments-{day}.csv".encode()
    while True:
        payments = (await _records(settings))[PAYMENTS.name]
        if any(of_day in (dict(r.headers)[IMPORTED_FROM] or b"") for r in payments) and (await _stored(url))[0]:
            return
        await _check_progress(children, deadline)


async def _check_progress(children: Children, deadline: float) -> None:
    """Waits a moment. Raises `DemonstrationFailed` if nothing more will happen."""
    if failures := list(children.failures()):
        raise DemonstrationFailed("\n".join(failures))
    if time.monotonic() > deadline:
        raise DemonstrationFailed(f"nothing arrived within {_PATIENCE_S:.0f} s")
    await asyncio.sleep(_POLL_S)


async def _wait_until_arrived(settings: Settings, office: Office, url: str, children: Children) -> list[Check]:
    """Waits until all checks pass. After the time limit, returns them as they are."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        checks = await _checks(settings, office, url)
        if all(check.passed for check in checks) or time.monotonic() > deadline:
            return checks
        await _check_progress(children, deadline)


async def _checks(settings: Settings, office: Office, url: str) -> list[Check]:
    records = await _records(settings)
    payments = Counter(r.key.decode() for r in records[PAYMENTS.name] if r.key is not None)
    letters = [dict(r.headers)["error"] or b"" for topic in _TARGETS for r in records[topic.dead_letters]]
    places = sorted(letter.decode().split(": ")[0] for letter in letters)
    wanted_payments = {payment.id: 1 for payment in office.payments}
    stock = {product: level.count for product, level in office.stock.items()}
    orders, customers = _frontend_rows(records)
    found_orders, found_customers = await _stored(url)
    return [
        Check("payments, each line once", dict(payments), wanted_payments, len(payments)),
        Check("customers", _latest(records, CUSTOMERS.name, "level"), _levels(office), len(office.customers)),
        Check("stock", _latest(records, WAREHOUSE_INVENTORY.name, "count"), stock, len(stock)),
        Check("dead letters, each mistake once", places, sorted(office.mistakes), len(places)),
        Check("orders of the frontend", found_orders, orders, len(found_orders)),
        Check("customers of the frontend", found_customers, customers, len(found_customers)),
        Check("states of the orders", _states(found_orders), _wanted_states(office), len(found_orders)),
    ]


async def _records(settings: Settings) -> dict[str, list[Record]]:
    topics = [ORDERS.name, *(topic.name for topic in _TARGETS), *(topic.dead_letters for topic in _TARGETS)]
    records: dict[str, list[Record]] = {name: [] for name in topics}
    async with Reader(settings, topics) as reader:
        async for record in reader.records(from_beginning=True, follow=False, stop=asyncio.Event()):
            records[record.topic].append(record)
    return records


def _latest(records: Mapping[str, list[Record]], topic: str, field: str) -> dict[str, object]:
    """A field of the last message of each key."""
    [model] = [t.model for t in _TARGETS if t.name == topic]
    last = {r.key.decode(): r.value for r in records[topic] if r.key is not None}
    return {key: getattr(model.from_json(value), field) for key, value in last.items() if value is not None}


def _levels(office: Office) -> dict[str, object]:
    return {str(number): customer.level for number, customer in office.customers.items()}


def _frontend_rows(records: Mapping[str, list[Record]]) -> tuple[dict[str, Any], dict[int, Any]]:
    """The rows that follow from the topics, each record after the other."""
    wanted = rows.prepare(
        [
            SinkRecord(r.topic, r.partition, 0, r.offset, r.timestamp_ms, r.key, r.value)
            for topic in (ORDERS.name, CUSTOMERS.name)
            for r in records[topic]
        ]
    )
    return dict(wanted.orders), {number: row for number, row in wanted.customers.items() if row is not None}


async def _stored(url: str) -> tuple[dict[str, Any], dict[int, Any]]:
    """The rows of the frontend database; none before its tables are made."""
    connection = await asyncpg.connect(url)
    try:
        orders, customers = await connection.fetch(_SELECT_ORDERS), await connection.fetch(_SELECT_CUSTOMERS)
    except asyncpg.UndefinedTableError:
        return {}, {}
    finally:
        await connection.close()
    return {r["order_no"]: rows.OrderRow(*r) for r in orders}, {
        r["customer_no"]: rows.CustomerRow(*r) for r in customers
    }


def _states(stored: Mapping[str, rows.OrderRow]) -> dict[str, str]:
    return {number: row.status for number, row in stored.items()}


def _wanted_states(office: Office) -> dict[str, str]:
    return {order.id: rows.STATUS[order.state] for order in office.orders.values()}
