"""Measures the answers of the history over many orders: pages of lists, records of an order, explanations.

Starts a PostgreSQL, fills the tables of the history with orders from POST to SHIPPED, and asks as the HTTP API does.

    python -m bench.history_queries [--orders 1000000] [--pages 10000] [--asked 500]
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from ecosystem.embedded.postgres import Postgres
from history_service import lists, queries
from history_service.explanations import Explainer
from history_service.filters import Filters, Position
from history_service.freshness import read_lag_s
from history_service.models import ORDERS
from history_service.settings import HistorySettings
from history_service.timeline import timeline
from runtime.common.clock import utc_now
from runtime.common.settings import Settings
from runtime.database.pool import Database
from schemas.messages import OrderState

PAGE = 50
START_S = 60.0
"""Seconds that the database may take to start."""

FILL = (
    "DROP INDEX order_words_trigrams, order_words_of_order, records_of_order, records_of_key",
    (
        "INSERT INTO sink_logs (topic, log_id, cut) VALUES ('orders', 'x', 0), ('order-validations', 'x', 0),"
        " ('warehouse-inventory', 'x', 0), ('products', 'x', 0), ('required-checks', 'x', 0)"
    ),
    """
    INSERT INTO orders (id, created_at, updated_at, attempt, state, state_rank, customer_id, product, quantity, price,
        value, reasons, failed_checks, posted_at, judged_at, validated_at, failed_at, shipped_at)
    SELECT 'order-' || n, at, at + interval '90 s', 1, CASE WHEN n % 10 = 0 THEN 'FAILED' ELSE 'SHIPPED' END, 2,
        n % 20000, 'product-' || n % 1000, 1, 49.99, 49.99,
        CASE WHEN n % 10 = 0 THEN ARRAY['FRAUD_CHECK: the orders of this session come to 2' || n] END,
        CASE WHEN n % 10 = 0 THEN ARRAY['FRAUD_CHECK'] END, at, at + interval '5 ms',
        CASE WHEN n % 10 > 0 THEN at + interval '8 ms' END, CASE WHEN n % 10 = 0 THEN at + interval '8 ms' END,
        CASE WHEN n % 10 > 0 THEN at + interval '90 s' END
    FROM (SELECT n, now() - interval '20 days' + n * interval '1.7 s' AS at FROM generate_series(1, {orders}) AS n)
    """,
    "INSERT INTO order_words SELECT created_at, id, id FROM orders",
    "INSERT INTO order_words SELECT created_at, id, lower(reasons[1]) FROM orders WHERE reasons IS NOT NULL",
    """
    INSERT INTO records (produced_at, stored_at, "offset", log, partition, stage, order_id, key, value, headers)
    SELECT created_at + number * interval '2 ms', now(), 8 * row_number() OVER () + number,
        CASE WHEN number BETWEEN 1 AND 3 THEN 2 ELSE 1 END, 0,
        CASE number WHEN 0 THEN 'CREATED' WHEN 4 THEN 'VALIDATED' WHEN 5 THEN 'SHIPPED' ELSE 'VERDICT' END, id,
        convert_to(id, 'UTF8'), convert_to(CASE
            WHEN number BETWEEN 1 AND 3 THEN json_build_object('orderId', id, 'checkType',
                (ARRAY['FRAUD_CHECK', 'INVENTORY_CHECK', 'ORDER_DETAILS_CHECK'])[number], 'validationResult', 'PASS')
            ELSE json_build_object('id', id, 'customerId', customer_id, 'product', product, 'quantity', quantity,
                'price', price, 'createdAt', created_at, 'state', 'CREATED') END::text, 'UTF8'),
        ARRAY['consumed-by'::bytea, 'details+fraud+inventory+orders']
    FROM orders, generate_series(0, 5) AS number
    """,
    """
    INSERT INTO records (produced_at, stored_at, "offset", log, partition, stage, key, value)
    SELECT now() - interval '20 days' + n * interval '1.7 s', now(), n, 3, 0, 'STOCK',
        convert_to('product-' || n % 1000, 'UTF8'),
        convert_to(json_build_object('product', 'product-' || n % 1000, 'count', 100000)::text, 'UTF8')
    FROM generate_series(1, {orders}) AS n
    """,
    "CREATE INDEX records_of_order ON records (order_id, produced_at) WHERE order_id IS NOT NULL",
    "CREATE INDEX records_of_key ON records (log, key, produced_at) WHERE order_id IS NULL",
    "CREATE INDEX order_words_of_order ON order_words (order_id)",
    "CREATE INDEX order_words_trigrams ON order_words USING gin (history_trigrams(word))",
    "ANALYZE orders, order_words, records",
)

LISTS = {
    "all": Filters(),
    "FAILED": Filters(states=(OrderState.FAILED,)),
    "FAILED or SHIPPED": Filters(states=(OrderState.FAILED, OrderState.SHIPPED)),
}
TEXTS = {
    "reason FRAUD_CHECK": Filters(reason="FRAUD_CHECK"),
    "q, few orders": Filters(part="order-77777"),
    "q, all orders": Filters(part="order-"),
    "customer": Filters(customer_id=77),
    "product": Filters(product="product-77"),
}


class Bench:
    """Asks a filled history, and prints how long the answers took."""

    def __init__(self, database: Database, args: argparse.Namespace) -> None:
        self._database = database
        self._args = args

    async def fill(self) -> None:
        began = time.monotonic()
        for statement in FILL:
            async with self._database.transaction(7200) as connection:
                await connection.exec_driver_sql(statement.replace("{orders}", str(self._args.orders)))
        print(f"{self._args.orders:,} orders, filled in {time.monotonic() - began:.0f} s", flush=True)

    async def ask(self, name: str, read: Callable[[AsyncConnection], Awaitable[Any]]) -> None:
        seconds = []
        for _ in range(self._args.asked):
            began = time.perf_counter()
            async with self._database.transaction(600) as connection:
                await read_lag_s(connection)
                await read(connection)
            seconds.append(time.perf_counter() - began)
        seconds.sort()
        median, p99 = statistics.median(seconds), seconds[int(len(seconds) * 0.99)]
        print(f"{name:42} p50 {1000 * median:8.1f} ms   p99 {1000 * p99:8.1f} ms", flush=True)

    async def position(self, filters: Filters, page: int) -> Position | None:
        """The order before a page: read here by its number, which clients know from the pages before."""
        query = lists.page(filters, None, 1).with_only_columns(ORDERS.c.created_at, ORDERS.c.id)
        async with self._database.transaction(600) as connection:
            row = (await connection.execute(query.offset(PAGE * (page - 1) - 1))).one_or_none()
        return None if row is None else Position(*row)

    async def run(self) -> None:
        chance = random.Random(1)
        for name, filters in LISTS.items():
            of = filters if len(filters.states) < 2 else Filters()
            found = await self.position(of, min(self._args.pages, self._args.orders // PAGE // 20))
            deep = await self.position(of, self._args.pages)
            for page, after in (("first page", None), ("page before", found), (f"page {self._args.pages:,}", deep)):
                if after is not None or page == "first page":
                    await self.ask(f"{name}: {page}", lambda c, f=filters, a=after: lists.read_page(c, f, a, PAGE))
        for name, filters in TEXTS.items():
            await self.ask(f"{name}: first page", lambda c, f=filters: lists.read_page(c, f, None, PAGE))

        def some() -> str:
            return f"order-{chance.randint(1, self._args.orders)}"

        async def history(connection: AsyncConnection) -> None:
            timeline(await queries.records_of_order(connection, some()))

        explainer = Explainer.of(HistorySettings())

        async def explain(connection: AsyncConnection) -> None:
            await explainer.explain(connection, some(), utc_now(), 0.0)

        await self.ask("history of an order", history)
        await self.ask("explain an order", explain)


async def measure(url: str, args: argparse.Namespace) -> None:
    database = Database("history", SecretStr(url), "history_service:migrations", Settings(database_timeout_s=START_S))
    async with database.open():
        await database.ready(START_S)
        bench = Bench(database, args)
        await bench.fill()
        await bench.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=1_000_000, help="(default: %(default)s)")
    parser.add_argument("--pages", type=int, default=10_000, help="number of the deep page (default: %(default)s)")
    parser.add_argument("--asked", type=int, default=500, help="answers per figure (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Postgres(Path(folder) / "postgres") as server:
        asyncio.run(measure(server.database("history"), args))


if __name__ == "__main__":
    main()
