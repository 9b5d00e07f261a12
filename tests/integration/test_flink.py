"""Flink SQL in place of the join of the e-mail service: `examples/flink`, on a real Flink that is killed in between."""

from collections import Counter

import pytest
from rich.console import Console

from examples.flink.demonstration import demonstrate
from examples.flink.install import FlinkUnavailable, ensure_flink
from examples.flink.topics import ENRICHED_BY_FLINK, WAREHOUSE_DELIVERIES
from schemas.topics import ORDERS_ENRICHED, WAREHOUSE_INVENTORY
from tests.workers import until
from validators.inventory.state import STOCK

ORDERS = 300


async def test_flink_has_the_rows_of_our_join_and_survives_a_kill(deployment, tmp_path):
    try:
        ensure_flink(Console(stderr=True), tmp_path / "cache")
    except FlinkUnavailable as error:
        pytest.skip(f"Flink is neither in the cache nor can it be fetched: {error}")
    worker = await deployment.start("email", "inventory")
    comparisons = await demonstrate(deployment.settings(), tmp_path / "flink", Console(stderr=True), ORDERS)
    assert [line for comparison in comparisons for line in comparison.differences] == []
    rows = {comparison.name: len(comparison.ours) for comparison in comparisons}
    assert rows["enriched"] > rows["paid"] == rows["confirmed"] > ORDERS / 5
    assert rows["stock"] == 4

    by_flink = await deployment.values(ENRICHED_BY_FLINK)
    assert max(Counter(order.id for order in by_flink).values()) == 1, "exactly once, although it was killed"

    async def by_the_service():
        return {order.id: order for order in await deployment.values(ORDERS_ENRICHED)}

    await until(lambda: _equals(by_the_service(), {order.id: order for order in by_flink}), "the service's own rows")
    counts = {level.product: level.count for level in await deployment.values(WAREHOUSE_INVENTORY)}
    assert set(counts) == {booking.product for booking in await deployment.values(WAREHOUSE_DELIVERIES)}
    for product, count in counts.items():
        await until(lambda: (row := worker.read(STOCK, product)) and row.count == count, f"stock of {product}")  # noqa: B023


async def _equals(found, expected):
    return await found == expected
