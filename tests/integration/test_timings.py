"""Times between the stages of orders, on a real PostgreSQL."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from history_service.models import ORDERS
from history_service.timings import read_timings
from runtime.common.settings import Settings
from runtime.database.pool import Database
from tests.workers import until

START = datetime(2026, 1, 1, tzinfo=UTC)


def order(number, **seconds):
    """An order of its own day, with the seconds after its creation at which it reached stages."""
    at = START + timedelta(days=number)
    times = {f"{name}_at": at + timedelta(seconds=after) for name, after in seconds.items()}
    nothing = {c.name: None for c in ORDERS.columns if c.name.endswith("_at")}
    return {**nothing, "id": f"o-{number}", "attempt": 1, "created_at": at, "updated_at": at, **times}


ROWS = [
    *(order(n, posted=0, judged=1, validated=n) for n in range(1, 101)),
    order(200, posted=0, judged=2, failed=4),
    order(201, posted=0, validated=10, paid=7, shipped=30),
    {**order(0, paid=5), "id": "not-posted", "created_at": None},
]


@pytest.fixture
async def read(database_url):
    """Reads the timings of a range of days."""
    database = Database("history", SecretStr(database_url), "history_service:migrations", Settings())
    async with database.open():
        await until(lambda: database.unavailable is None, "reached")
        async with database.transaction() as connection:
            await connection.execute(ORDERS.insert(), ROWS)

        async def timings(since=None, before=None):
            bounds = [None if day is None else START + timedelta(days=day) for day in (since, before)]
            async with database.transaction() as connection:
                orders, steps = await read_timings(connection, *bounds)
            return orders, {
                (s.start, s.end): (s.count, s.p50_seconds, s.p90_seconds, s.p99_seconds, s.max_seconds) for s in steps
            }

        yield timings


async def test_percentiles_of_each_step(read):
    orders, steps = await read()
    assert orders == 102, "an order that only other topics have named is none"
    assert steps["POSTED", "FIRST_VERDICT"] == (101, 1, 1, 1, 2)
    assert steps["POSTED", "FAILED"] == (1, 4, 4, 4, 4)
    assert steps["POSTED", "DECIDED"][0] == 102
    assert steps["FIRST_VERDICT", "DECIDED"][0] == 101, "an order without a verdict has not taken this step"
    assert steps["VALIDATED", "SHIPPED"] == (1, 20, 20, 20, 20)
    assert steps["VALIDATED", "FIRST_PAYMENT"] == (1, 0, 0, 0, 0), "it was paid before it was validated"
    assert ("POSTED", "CANCELLED") not in steps


async def test_a_range_is_half_open(read):
    assert await read(200, 201) == (
        1,
        {
            ("POSTED", "FIRST_VERDICT"): (1, 2, 2, 2, 2),
            ("FIRST_VERDICT", "DECIDED"): (1, 2, 2, 2, 2),
            ("POSTED", "DECIDED"): (1, 4, 4, 4, 4),
            ("POSTED", "FAILED"): (1, 4, 4, 4, 4),
        },
    )
    orders, steps = await read(1, 101)
    assert orders == 100
    assert steps["POSTED", "VALIDATED"] == pytest.approx((100, 50.5, 90.1, 99.01, 100))
    assert await read(300) == (0, {})
