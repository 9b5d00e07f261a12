"""Lists of orders on a real PostgreSQL: every order once whatever is written meanwhile, and from indexes alone."""

import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.dialects import postgresql

from history_service import lists
from history_service.filters import Filters, Position
from runtime.common.settings import Settings
from runtime.database.pool import Database
from schemas.messages import OrderState
from tests.workers import until

START = datetime(2026, 1, 1, tzinfo=UTC)
MANY = 100_000
PAGE = 50


@pytest.fixture(scope="module")
async def history(postgres):
    """The migrated database of a history without records."""
    url = postgres.database("history_lists")
    database = Database("history", SecretStr(url), "history_service:migrations", Settings(database_timeout_s=120))
    async with database.open():
        await until(lambda: database.unavailable is None, "reached")
        yield database
    postgres.drop("history_lists")


async def execute(history, *statements):
    async with history.transaction(600) as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


_COLUMNS = "id, created_at, updated_at, attempt, state, customer_id, product, quantity, price, value, reasons"


async def insert(history, orders):
    """Inserts orders of ids and seconds."""
    async with history.transaction() as connection:
        for order_id, seconds in orders:
            values = {"id": order_id, "at": START + timedelta(seconds=seconds)}
            await connection.execute(
                text(f"INSERT INTO orders ({_COLUMNS}) VALUES (:id, :at, :at, 1, 'CREATED', 1, 'mug', 1, 5, 5, NULL)"),
                values,
            )


async def pages(history, filters, limit, between=None):
    """Reads all pages, and runs `between` after each. Returns the ids in the order of the pages."""
    seen, after = [], None
    while True:
        async with history.transaction() as connection:
            page = await lists.read_page(connection, filters, after, limit)
        seen += [order.id for order in page.orders]
        if page.last is None:
            return seen
        after = page.last
        if between is not None:
            await between()


KEYS = st.tuples(st.text("ab-Ä1", min_size=1, max_size=4), st.integers(0, 3))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.lists(KEYS, unique_by=lambda key: key[0], max_size=12), later=st.lists(KEYS), limit=st.integers(1, 5))
async def test_each_order_that_exists_throughout_is_seen_once(history, first, later, limit):
    await execute(history, "TRUNCATE orders, order_words")
    await insert(history, first)
    known = {order_id for order_id, _ in first}
    new = iter([key for key in {order_id: (order_id, at) for order_id, at in later}.values() if key[0] not in known])

    async def write():
        await insert(history, itertools.islice(new, 1))
        await execute(history, "UPDATE orders SET state = 'VALIDATED', updated_at = now()")

    seen = await pages(history, Filters(), limit, write)

    assert len(seen) == len(set(seen))
    assert known <= set(seen)
    seconds = {**dict(later), **dict(first)}
    assert [seconds[order_id] for order_id in seen] == sorted((seconds[order_id] for order_id in seen), reverse=True)


@pytest.fixture(scope="module")
async def many(history):
    """A history of many orders, a second each: one in ten FAILED, one in a thousand of customer 7."""
    await execute(
        history,
        "TRUNCATE orders, order_words",
        "DROP INDEX order_words_trigrams",
        f"INSERT INTO orders ({_COLUMNS}) SELECT 'order-' || n, '2026-01-01Z'::timestamptz + n * interval '1 s',"
        " now(), 1,"
        " CASE WHEN n % 10 = 0 THEN 'FAILED' WHEN n % 1000 = 1 THEN 'CANCELLED' ELSE 'SHIPPED' END,"
        " CASE WHEN n % 1000 = 0 THEN 7 ELSE n END, 'product-' || n % 100, 1, 5, 5,"
        f" CASE WHEN n % 10 = 0 THEN ARRAY['FRAUD_CHECK: too much, ' || n] END FROM generate_series(1, {MANY}) AS n",
        "INSERT INTO order_words SELECT created_at, id, id FROM orders",
        "INSERT INTO order_words SELECT created_at, id, lower(reasons[1]) FROM orders WHERE reasons IS NOT NULL",
        "CREATE INDEX order_words_trigrams ON order_words USING gin (history_trigrams(word))",
        "ANALYZE orders, order_words",
    )
    return history


async def explained(history, query, *, run=False):
    """The plan of a query under the settings of lists, and the blocks that it reads."""
    compiled = query.compile(dialect=postgresql.asyncpg.dialect(), compile_kwargs={"render_postcompile": True})
    async with history.transaction() as connection:
        await connection.execute(lists.INDEXES_ONLY)
        raw = await connection.get_raw_connection()
        values = [compiled.params[name] for name in compiled.positiontup or ()]
        statement = f"EXPLAIN ({'ANALYZE, BUFFERS, ' if run else ''}FORMAT JSON) {compiled}"
        found = await raw.driver_connection.fetchval(statement, *values)
    [plan] = found if isinstance(found, list) else json.loads(found)
    return plan["Plan"]


def nodes(plan):
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


DEEP = Position(START + timedelta(seconds=MANY // 10), f"order-{MANY // 10}")
LISTS = {
    "all": Filters(),
    "state": Filters(states=(OrderState.FAILED,)),
    "states": Filters(states=(OrderState.CANCELLED, OrderState.FAILED)),
    "customer": Filters(customer_id=7),
    "product": Filters(product="product-3"),
    "time": Filters(since=START, before=START + timedelta(hours=9)),
    "text": Filters(part="order-5"),
    "reason": Filters(reason="FRAUD_CHECK", states=(OrderState.FAILED,)),
}


@pytest.mark.parametrize("after", [None, DEEP], ids=["first page", "deep page"])
@pytest.mark.parametrize("name", LISTS)
async def test_no_list_scans_a_table(many, name, after):
    filters = LISTS[name]
    queries = [lists.page(filters, after, PAGE)]
    if filters.part or filters.reason:
        queries += [lists.page(filters, after, PAGE, {f"order-{n}" for n in range(100)})]
        queries += [lists.candidates(part) for part in (filters.part, filters.reason) if part]
        queries += [lists.probe(filters, after, PAGE)]
    for query in queries:
        found = list(nodes(await explained(many, query)))
        assert [node["Node Type"] for node in found if node["Node Type"] == "Seq Scan"] == [], found


@pytest.mark.parametrize("name", ["all", "state", "states", "product", "time", "reason"])
async def test_a_deep_page_reads_no_more_than_the_first(many, name):
    blocks = []
    for after in (None, DEEP):
        plan = await explained(many, lists.page(LISTS[name], after, PAGE), run=True)
        assert plan["Actual Rows"] == PAGE
        blocks.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
    assert max(blocks) < 20 * PAGE, blocks
    assert blocks[1] < 3 * blocks[0] + PAGE, blocks


LATEST = range(99_990, 98_990, -10)
LATER = range(9990, 9890, -10)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(part="ORDER-12345"), [12345]),
        (Filters(part="oo much, 1230"), [12300, 1230]),
        (Filters(part="_rder-12345"), []),
        (Filters(part="order-1", customer_id=7, before=START + timedelta(seconds=1500)), [1000]),
        (Filters(reason="fraud_check: TOO much, 99"), [*LATEST, *LATER, 990]),
        (Filters(reason="order-"), []),
    ],
)
async def test_orders_are_found_by_parts_of_texts(many, filters, expected):
    assert await pages(many, filters, 500) == [f"order-{n}" for n in expected]


async def test_a_part_of_many_orders_is_found_in_each_of_them(many):
    filters = Filters(part="order-", since=START + timedelta(seconds=MANY - 1200))
    assert await pages(many, filters, 500) == [f"order-{n}" for n in range(MANY, MANY - 1201, -1)]


@pytest.mark.parametrize("filters", [Filters(part="order-"), Filters(reason="FRAUD_CHECK"), LISTS["reason"]])
async def test_a_part_of_many_orders_fills_a_page_without_the_index_of_parts(many, filters, monkeypatch):
    monkeypatch.delattr(lists, "candidates")
    async with many.transaction() as connection:
        page = await lists.read_page(connection, filters, DEEP, PAGE)
    step = 10 if filters.reason else 1
    first = MANY // 10 - step
    assert [order.id for order in page.orders] == [f"order-{n}" for n in range(first, first - PAGE * step, -step)]
    plan = await explained(many, lists.probe(filters, DEEP, PAGE), run=True)
    assert "order_words_trigrams" not in json.dumps(plan)
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 20 * PAGE * lists.PROBED, plan


async def test_several_states_are_merged_in_the_order_of_time(many):
    states = (OrderState.CANCELLED, OrderState.FAILED)
    filters = Filters(states=states, before=START + timedelta(seconds=3001))
    assert await pages(many, filters, 7) == [f"order-{n}" for n in range(3000, 0, -1) if n % 10 == 0 or n % 1000 == 1]
