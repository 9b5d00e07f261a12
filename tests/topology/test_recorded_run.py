"""The services of an order write what they have always written, byte for byte: records, headers, rows.

`recorded/` holds what an earlier revision wrote. Other bytes mean another format, and data of earlier versions stay on
topics and disks. After an intended change record it anew, and read the difference:

    RECORD=1 python -m pytest tests/topology/test_recorded_run.py
"""

import os
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from orders_service.commands import place
from orders_service.state import ORDERS_VIEW
from runtime.model.records import Write
from runtime.testing import TopologyTestDriver
from schemas.messages import Cancellation, CheckSet, Payment, ProductEvent, ProductEventKind, RequiredChecks, StockLevel
from schemas.topics import (
    CANCELLATIONS,
    CUSTOMERS,
    HOME_CHECKINS,
    ORDER_VALIDATIONS,
    ORDERS,
    PAYMENTS,
    PRODUCTS,
    REQUIRED_CHECKS,
    WAREHOUSE_INVENTORY,
)
from tests.samples import DETAILS, FRANZ, FRAUD, INVENTORY, checked_in, order, verdict
from tests.topology.conftest import order_services

RECORDED = Path(__file__).parent / "recorded"
MARKS = (("replayed-from", b"orders/2/17"), ("replays", b"1"))


def run_for_a_week(driver):
    """Orders that pass, fail, are repeated, cancelled, shipped, replayed, opened again, and never decided."""

    def new(id_, **content):
        return order(id_, **{"created_at": driver.now, **content})

    def post(*orders):
        for one in orders:
            driver.call(ORDERS_VIEW, one.id, partial(place, one))

    def change(code, version, kind, price="5"):
        return ProductEvent(
            event_id=f"{code}-{version}", kind=kind, code=code, name=code, price=price, version=version, at=driver.now
        )

    created, withdrawn = ProductEventKind.CREATED, ProductEventKind.WITHDRAWN
    driver.send(CUSTOMERS, FRANZ, FRANZ.model_copy(update={"id": 1}))
    driver.send(PRODUCTS, change("JUMPERS", 1, created), change("Mütze", 1, created, price="0.0001"))
    driver.send(WAREHOUSE_INVENTORY, StockLevel(product="JUMPERS", count=10), StockLevel(product="Mütze", count=3))
    post(new("o1"), new("o1"), new("o2", product="Mütze", quantity=3, customer_id=7, price="12345678901.2345"))
    driver.advance(timedelta(seconds=2))
    post(new("o3", quantity=99), new("o4", quantity=-1, price=-1), new("o5", product="Unknown"))
    post(new("o6", customer_id=8, price=1999), new("o7", customer_id=8, price=1), new("ö8", price="0.1"))
    driver.send(ORDERS, new("old", created_at=driver.now - timedelta(days=30)))
    driver.send(ORDER_VALIDATIONS, verdict(FRAUD, "PASS", "o1"), verdict(DETAILS, "ERROR", "orphan", "no price"))
    driver.send(PAYMENTS, Payment(id="p1", order_id="o1", ccy="EUR", amount=5))
    driver.send(HOME_CHECKINS, checked_in("c1", "o1"), checked_in("c2", "o3"))
    driver.send(CANCELLATIONS, *(Cancellation(order_id=id_, reason="changed my mind") for id_ in ("ö8", "o1")))
    driver.send(ORDERS, new("o3", quantity=99, attempt=2), new("ahead", attempt=3))
    driver.send_raw(ORDERS, b"replayed", new("replayed").to_json(), *MARKS)
    driver.send_raw(ORDERS, b"o-bad", b"{")
    driver.send_raw(WAREHOUSE_INVENTORY, "Mütze".encode(), None)
    driver.send(PRODUCTS, change("JUMPERS", 2, withdrawn))
    post(new("o9"))
    driver.advance(timedelta(minutes=10))
    required = RequiredChecks(version=1, sets=(CheckSet(since=driver.now, checks=(FRAUD, INVENTORY, "QUOTA_CHECK")),))
    for partition in range(driver.partitions):
        driver.write(Write(REQUIRED_CHECKS.name, partition, b"required-checks", required.to_json()))
    driver.run()
    post(new("o10", product="Unknown"), new("o11", product="Mütze", customer_id=9))
    driver.send(ORDER_VALIDATIONS, verdict("QUOTA_CHECK", "FAIL", "o11", "too many"))
    driver.advance(timedelta(days=8))


def written(driver, rows):
    """All records and row changes as text, one a line."""
    for tp in sorted(driver.topics):
        for record in driver.topics[tp]:
            yield f"{tp.topic} {tp.partition} {record[3:7]}"
    for row in sorted(rows):
        yield "{} {} {:04} {} {}".format(*row)


@pytest.mark.parametrize("layout", ["composed", "not-fused"])
def test_the_bytes_of_a_recorded_run_stay(layout):
    driver = TopologyTestDriver(*order_services(), fuse=layout == "composed")
    rows = []
    for worker in driver.workers:
        open_store = worker.stores.open
        for table in worker.topology.tables:
            for partition in range(driver.partitions):
                _record_rows(open_store(table, partition), table, partition, rows)

    run_for_a_week(driver)

    text = "".join(f"{line}\n" for line in written(driver, rows))
    file = RECORDED / f"{layout}.txt"
    if "RECORD" in os.environ:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def _record_rows(store, table, partition, rows):
    """Records every row that is applied to a store, in order."""
    apply = store.apply

    def recorded(changed, offset):
        for key, value in changed.items():
            rows.append((table, partition, len(rows), key, value))
        apply(changed, offset)

    store.apply = recorded
