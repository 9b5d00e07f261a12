"""The audit of a long history takes no more memory than that of a short one."""

import asyncio
import json
import os
import sys

from ecosystem.audit.sources import Source
from orders_service.state import OrderView
from schemas.api import Verdict
from schemas.messages import BuiltInCheck, Order, OrderState, OrderValidation, StockLevel, ValidationResult
from tests.audit import topics
from validators.inventory.state import Reservation, Stock

PRODUCTS = 50
NOW_MS = 1_700_000_000_000

RUN = """
import json, resource, sys
from ecosystem.cli.main import main
try:
    main(["audit", "--json"])
except SystemExit as end:
    print(json.dumps({"code": end.code, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def history(orders):
    """Records of so many orders that passed, as one worker writes them."""
    for n in range(PRODUCTS):
        yield topics.stored(Source.WAREHOUSE, f"P{n}", StockLevel(product=f"P{n}", count=10**6), NOW_MS)
    passed = ValidationResult.PASS
    verdicts = tuple(Verdict(check_type=check, validation_result=passed) for check in BuiltInCheck)
    reserved = dict.fromkeys(range(PRODUCTS), 0)
    for n in range(orders):
        id_, product = f"order-{n * 7919 % orders:08}", f"P{n % PRODUCTS}"
        at = NOW_MS + n
        order = Order(id=id_, customer_id=n, product=product, quantity=1, price=5)
        decided = order.model_copy(update={"state": OrderState.VALIDATED})
        reserved[n % PRODUCTS] += 1
        stock = Stock(count=10**6, reserved=reserved[n % PRODUCTS])
        yield topics.stored(Source.ORDERS, id_, order, at)
        for check in BuiltInCheck:
            said = OrderValidation(order_id=id_, check_type=check, validation_result=passed)
            yield topics.stored(Source.VERDICTS, id_, said, at)
        yield topics.stored(Source.ORDERS, id_, decided, at)
        yield topics.stored(Source.VIEW, id_, OrderView(order=decided, verdicts=verdicts), at)
        yield topics.stored(Source.RESERVATIONS, id_, Reservation(product=product, held=1), at, by=product)
        yield topics.stored(Source.STOCK, product, stock, at)


async def peak_of(kafka, orders):
    """MiB that an audit of so many orders takes at most, in a process of its own."""
    settings = await topics.write(kafka, history(orders))
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka, "TOPIC_PREFIX": settings.topic_prefix}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN, env=environment, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    report, end = [json.loads(line) for line in said.splitlines()]
    assert end["code"] == 0, report
    assert report["counts"]["orders"] == report["counts"]["validated"] == report["counts"]["reserved"] == orders
    return end["mib"]


async def test_memory_does_not_grow_with_history(kafka):
    short, long = await peak_of(kafka, 4_000), await peak_of(kafka, 40_000)
    # 288,000 records more: kept in memory, a KiB each, they would take 280 MiB.
    assert long < short + 100, (short, long)
