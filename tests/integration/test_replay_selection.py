"""What a replay reads of a real PostgreSQL: every record once, page by page, from indexes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from ecosystem.replay import database as reading
from ecosystem.replay.plan import Plan
from ecosystem.replay.records import Place, replay_headers
from ecosystem.replay.selecting import Selector
from ecosystem.replay.selection import Selection
from ecosystem.replay.stages import INPUTS
from history_service import store
from history_service.filters import Filters
from history_service.projection import project
from history_service.stages import Stage
from runtime.common.clock import utc_now
from runtime.common.settings import Settings
from runtime.database.pool import Database
from runtime.model.sink import SinkRecord
from runtime.sink.postgres import PostgresBulkWriter
from schemas import topics
from schemas.messages import Order, OrderState, Payment, StockLevel
from schemas.topics import Topic
from tests.workers import PATIENCE_S

START = datetime(2026, 11, 5, tzinfo=UTC)
ORDERS = 13
LOGS: dict[Topic[Any], int] = {topics.ORDERS: 1, topics.PAYMENTS: 2, topics.WAREHOUSE_INVENTORY: 3}


def record(topic, message, offset, hours, headers=(), partition=0):
    ms = int((START + timedelta(hours=hours)).timestamp() * 1000)
    place = topic.name, partition, LOGS[topic], offset, ms
    return SinkRecord(*place, topic.key(message).encode(), message.to_json(), headers)


def records():
    for n in range(ORDERS):
        at = START + timedelta(hours=n)
        order = Order(id=f"o-{n}", customer_id=n % 3, product=f"p-{n % 2}", quantity=1, price=5, created_at=at)
        yield record(topics.ORDERS, order, n, n)
        failed = {"state": OrderState.FAILED, "reasons": ("FRAUD_CHECK: too much",)}
        yield record(topics.ORDERS, order.model_copy(update=failed), 100 + n, n)
        yield record(topics.PAYMENTS, Payment(id=f"pay-{n}", order_id=f"o-{n}", ccy="EUR", amount=5), n, n)
        for partition in range(2):
            level = StockLevel(product=f"p-{partition}", count=n)
            yield record(topics.WAREHOUSE_INVENTORY, level, n, n, partition=partition)
    marks = replay_headers(Place("warehouse-inventory", 1, 3), 2, side_effects=False)
    yield record(topics.WAREHOUSE_INVENTORY, StockLevel(product="p-1", count=3), 50, 3, marks, partition=1)


@pytest.fixture
async def history(database_url):
    """The URL of a history with records over a month's end, each page of which has few."""
    database = Database("history", SecretStr(database_url), "history_service:migrations", Settings())
    async with database.open():
        await database.ready(PATIENCE_S)
    connection = await asyncpg.connect(database_url)
    for topic, log in LOGS.items():
        await connection.execute(
            "INSERT INTO sink_logs (id, topic, log_id, cut) OVERRIDING SYSTEM VALUE VALUES ($1, $2, 'log', 0)",
            *(log, topic.name),
        )
        for partition in range(2):
            await connection.execute(
                "INSERT INTO sink_offsets (topic, partition, log, next_offset, end_offset) VALUES ($1, $2, $3, 1, 1)",
                *(topic.name, partition, log),
            )
    async with connection.transaction():
        await store.write(PostgresBulkWriter(connection), [project(records(), utc_now)])
    await connection.close()
    return database_url


@pytest.fixture
def selected(history, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_PAGE", 3)
    monkeypatch.setattr(reading, "_MOST_RECORDS", 2)

    async def select(**wanted):
        folder = tmp_path / str(len([*tmp_path.iterdir()]))
        folder.mkdir()
        with Plan(folder, 5) as plan:
            async with reading.opened(history) as reader:
                await Selector(reader, Selection(**wanted), plan, utc_now).run()
                assert await reader.partitions() == {topic.name: 2 for topic in LOGS}
            plan.complete()
            return {str(one.record.place): one.replays for one in plan.records()}

    return select


async def test_every_page_is_read(selected):
    expected = {f"{topic}/0/{n}": 1 for topic in ("orders", "payments") for n in range(ORDERS)}
    stock = {f"warehouse-inventory/{partition}/{n}": 1 for partition in range(2) for n in range(ORDERS)}
    assert await selected(stages=INPUTS) == expected | stock | {"warehouse-inventory/1/3": 3}
    assert await selected() == {place: 1 for place in expected if place.startswith("orders")}
    assert len(await selected(ids=tuple(f"o-{n}" for n in range(20)))) == ORDERS


async def test_filters_tell_orders_and_what_is_about_none(selected):
    since = Filters(since=START + timedelta(hours=5), before=START + timedelta(hours=9), product="p-1")
    expected = {"orders/0/5", "orders/0/7", *(f"warehouse-inventory/1/{n}" for n in range(5, 9))}
    assert {*await selected(filters=since, stages=(Stage.CREATED, Stage.STOCK))} == expected
    of_customer = Filters(customer_id=2, states=(OrderState.FAILED,), reason="fraud")
    assert {*await selected(filters=of_customer, stages=INPUTS)} == {
        f"{topic}/0/{n}" for topic in ("orders", "payments") for n in (2, 5, 8, 11)
    }
    assert await selected(filters=Filters(states=(OrderState.SHIPPED,)), stages=INPUTS) == {}


async def test_a_database_without_a_history_is_told(database_url):
    with pytest.raises(reading.NoHistory, match="has no history"):
        async with reading.opened(database_url):
            pass
