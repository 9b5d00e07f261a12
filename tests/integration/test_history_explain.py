"""Explanations from a real PostgreSQL that has the records of a day as the services wrote them."""

import random
import re
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from pydantic import SecretStr

from history_service import store
from history_service.evidence import last_of_key
from history_service.explanations import Explainer
from history_service.projection import project
from history_service.settings import HistorySettings
from runtime.common.clock import utc_now
from runtime.common.settings import Settings
from runtime.database.pool import Database
from runtime.sink.postgres import PostgresBulkWriter
from schemas.money import plain_amount
from schemas.topics import CATALOGUE, ORDER_VALIDATIONS
from tests.explaining import GAP_S, LIMIT, Count, End, Place, Redecide, Wait, played, stored
from tests.integration.test_history_lists import explained
from tests.samples import DETAILS, FRAUD, INVENTORY
from tests.workers import until

NUMBERS_OF = {FRAUD: "session", INVENTORY: "stock", DETAILS: "product"}


def day(seed, count=200):
    chance = random.Random(seed)
    for number in range(count):
        yield chance.choice(
            (
                Place(chance.randint(1, 4), chance.choice(("mug", "hat")), chance.randint(0, 3), chance.randint(0, 30)),
                Place(chance.randint(1, 4), chance.choice(("mug", "hat")), chance.randint(0, 3), chance.randint(0, 30)),
                Count(chance.choice(("mug", "hat")), chance.randint(0, 20)),
                End(chance.randint(0, number), chance.random() < 0.7),
                Wait(chance.randint(1, 40)),
            )
        )


@pytest.fixture
async def database(database_url):
    database = Database(
        "history", SecretStr(database_url), "history_service:migrations", Settings(database_timeout_s=60)
    )
    async with database.open():
        await until(lambda: database.unavailable is None, "reached")
        yield database


async def test_the_last_record_of_a_key_is_found_by_an_index(database):
    async with database.transaction() as connection:
        await connection.exec_driver_sql(
            'INSERT INTO records (produced_at, stored_at, "offset", log, partition, stage, key, value)'
            " SELECT '2026-01-01Z'::timestamptz + n * interval '1 s', now(), n, 1, 0, 'STOCK',"
            " convert_to('product-' || n % 100, 'UTF8'), 'x' FROM generate_series(1, 20000) AS n"
        )
        await connection.exec_driver_sql("ANALYZE records")
    query = last_of_key([1], "product-7", datetime(2026, 1, 1, 3, tzinfo=UTC))
    plan = await explained(database, query, run=True)
    assert plan["Actual Rows"] == 1
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 20, plan


async def explained_orders(driver, database, database_url):
    """The explanation of each order of a driver whose records are stored, by id."""
    connection = await asyncpg.connect(database_url)
    for log, topic in enumerate(CATALOGUE):
        await connection.execute("INSERT INTO sink_logs (topic, log_id, cut) VALUES ($1, 'x', 0)", topic.name)
        assert await connection.fetchval("SELECT id FROM sink_logs WHERE topic = $1", topic.name) == log + 1
    async with connection.transaction():
        await store.write(PostgresBulkWriter(connection), [project(stored(driver), utc_now)])
    ids = [row["id"] for row in await connection.fetch("SELECT id FROM orders WHERE created_at IS NOT NULL")]
    await connection.close()
    explainer = Explainer.of(HistorySettings(fraud_limit=LIMIT, fraud_session_gap_s=GAP_S))
    async with database.transaction() as reading:
        assert await explainer.explain(reading, "no such order", utc_now(), 0.0) is None
        return {order_id: await explainer.explain(reading, order_id, utc_now(), 0.0) for order_id in ids}


async def test_each_verdict_of_a_day_is_explained_by_the_numbers_behind_it(database, database_url):
    driver = played(day(seed=7))
    given = {(v.order_id, v.check_type): v for v in driver.values(ORDER_VALIDATIONS)}

    explained = await explained_orders(driver, database, database_url)

    verdicts = {(o, v.check_type): v for o, explanation in explained.items() for v in explanation.verdicts}
    assert verdicts.keys() == given.keys()
    for place, verdict in verdicts.items():
        assert (verdict.validation_result, verdict.reason) == (given[place].validation_result, given[place].reason)
        assert verdict.agrees is not False, (place, verdict)
        assert verdict.required
        if verdict.session and verdict.reason:
            assert f"come to {plain_amount(verdict.session.total, 'EUR')}," in verdict.reason
        if verdict.stock and (told := re.search(r"(\d+) available", verdict.reason or "")):
            assert verdict.stock.available == int(told[1])
    for name in ("session", "stock"):
        of_kind = [v for v in verdicts.values() if getattr(v, name) is not None]
        assert {v.validation_result for v in of_kind} == {"PASS", "FAIL"}, "the day has both"
    assert any(v.stock.shipped and v.stock.reserved for v in verdicts.values() if v.stock)
    failed = [e for e in explained.values() if e.state == "FAILED"]
    assert all("did not pass" in e.explanation and e.missing == () for e in failed)
    assert {e.required_from for e in failed} == {"REQUIRED_CHECKS"}


async def test_an_order_that_was_decided_anew_is_explained_by_its_latest_attempt(database, database_url):
    driver = played(
        [
            Count("mug", 1),
            Place(1, "mug", 2, 10),  # fails twice: too few, then still too few
            Place(2, "hat", 2, 40),  # fails: no stock; passes once there is some
            Count("mug", 1),
            Redecide(0, 2),
            Count("hat", 5),
            Place(2, "hat", 1, 10),
            Redecide(1, 2),
            Place(3, "hat", 3, 1),  # fails: the order that was decided anew holds its pieces
        ]
    )
    explained = await explained_orders(driver, database, database_url)
    assert {i: e.state for i, e in explained.items()} == {
        "o-0": "FAILED",
        "o-1": "VALIDATED",
        "o-2": "VALIDATED",
        "o-3": "FAILED",
    }
    numbers = {(i, v.check_type): v for i, e in explained.items() for v in e.verdicts}
    assert all(v.agrees is not False for v in numbers.values()), numbers
    assert all(e.missing == () for e in explained.values())
    again = numbers["o-1", INVENTORY]
    assert (again.validation_result, again.stock.counted, again.stock.available) == ("PASS", 5, 4)
    assert numbers["o-1", FRAUD].session.total == 90, "as it was when the order was decided anew"
    assert numbers["o-1", FRAUD].session.earlier == ("o-2",)
    assert numbers["o-0", INVENTORY].at > numbers["o-3", INVENTORY].at - timedelta(seconds=10)
    assert (numbers["o-3", INVENTORY].stock.reserved, numbers["o-3", INVENTORY].stock.available) == (3, 2)
