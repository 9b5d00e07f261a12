"""Compares Flink's rows with those of the e-mail service's own processors on the same input."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ecosystem.clients.reader import Reader, partition_count
from ecosystem.services import build
from email_service.state import JOINS, AddressedEmail, EmailKind
from examples.flink.topics import ENRICHED_BY_FLINK, PAID_BY_FLINK, WAREHOUSE_DELIVERIES, Booking, PaidOrder
from runtime.common.settings import Settings
from runtime.model.records import Record, Write
from runtime.testing import TopologyTestDriver
from schemas.messages import OrderState
from schemas.topics import CUSTOMERS, ORDERS, ORDERS_ENRICHED, PAYMENTS, WAREHOUSE_INVENTORY, Topic
from schemas.wire import Message

Rows = Mapping[str, Message | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows of one result by key, ours and Flink's."""

    name: str
    ours: Rows
    flinks: Rows

    @property
    def differences(self) -> list[str]:
        keys = sorted({*self.ours, *self.flinks})
        return [
            f"{self.name} {key}: ours {self.ours.get(key)!r}, Flink's {self.flinks.get(key)!r}"
            for key in keys
            if key not in self.ours or key not in self.flinks or self.ours[key] != self.flinks[key]
        ]


async def compare(settings: Settings, currency: str) -> list[Comparison]:
    """Reads the topics as they are now, and compares enriched orders, paid orders and stock."""
    topics: tuple[Topic[Any], ...] = (
        *(CUSTOMERS, ORDERS, PAYMENTS, WAREHOUSE_DELIVERIES),
        *(ENRICHED_BY_FLINK, PAID_BY_FLINK, WAREHOUSE_INVENTORY),
    )
    records: dict[str, list[Record]] = {topic.name: [] for topic in topics}
    async with Reader(settings, list(records)) as reader:
        async for record in reader.records(from_beginning=True, follow=False, stop=asyncio.Event()):
            records[record.topic].append(record)
    ours = _email_service(settings, currency, await partition_count(settings), records)
    stock = _stock(records[WAREHOUSE_DELIVERIES.name])
    counted = _latest(WAREHOUSE_INVENTORY, records)
    return [
        Comparison("enriched", {o.id: o for o in ours.values(ORDERS_ENRICHED)}, _latest(ENRICHED_BY_FLINK, records)),
        Comparison("paid", _paid(ours, currency, records), _latest(PAID_BY_FLINK, records)),
        Comparison("stock", stock, {product: counted[product] for product in stock if product in counted}),
    ]


def _email_service(
    settings: Settings, currency: str, partitions: int, records: Mapping[str, Iterable[Record]]
) -> TopologyTestDriver:
    """Runs the e-mail service in memory over its input. Customers come first: no e-mail waits for one too long."""
    own = settings.model_copy(update={"currency": currency})
    [service] = [hosted.service for hosted in build(("email",), own)]
    driver = TopologyTestDriver(service, partitions=partitions)
    for name in (CUSTOMERS.name, PAYMENTS.name, ORDERS.name):
        for record in records[name]:
            driver.write(Write(name, record.partition, record.key, record.value, record.headers))
        driver.run()
    return driver


def _paid(driver: TopologyTestDriver, currency: str, records: Mapping[str, Iterable[Record]]) -> Rows:
    """Rows of the confirmed orders that are neither cancelled nor refunded since.

    The e-mail service decides once, and sends another e-mail about what happens later. A view shows what holds now.
    """
    orders = [ORDERS.model.from_json(record.value) for record in records[ORDERS.name] if record.value is not None]
    cancelled = {order.id for order in orders if order.state is OrderState.CANCELLED}
    [effect] = [effect for w in driver.workers for s in w.topology.services for effect in s.side_effects]
    rows: dict[str, Message] = {}
    for addressed in driver.pending(effect).values():
        assert isinstance(addressed, AddressedEmail)
        order, customer = addressed.email.order, addressed.customer
        join = driver.row(JOINS.rows, order.id)
        if addressed.email.kind is not EmailKind.VALIDATED or join is None or order.id in cancelled:
            continue
        if join.paid.covers(order.value, currency):
            rows[order.id] = PaidOrder(
                id=order.id,
                customer_id=customer.id,
                customer_level=customer.level,
                first_name=customer.first_name,
                last_name=customer.last_name,
                email=customer.email,
                product=order.product,
                value=order.value,
                paid=join.paid.sum(currency),
                payments=join.paid.counted,
            )
    return rows


def _stock(records: Iterable[Record]) -> Rows:
    """Sums the bookings of each product, each id once."""
    bookings: dict[tuple[str, str], Booking] = {}
    for record in records:
        if record.value is not None:
            booking = Booking.from_json(record.value)
            bookings.setdefault((booking.product, booking.id), booking)
    sums: dict[str, int] = {}
    for booking in bookings.values():
        sums[booking.product] = sums.get(booking.product, 0) + booking.quantity
    return {p: WAREHOUSE_INVENTORY.model(product=p, count=max(count, 0)) for p, count in sums.items()}


def _latest(topic: Topic[Any], records: Mapping[str, Iterable[Record]]) -> dict[str, Message]:
    """The table that a topic describes: the last record of each key, without tombstones."""
    rows: dict[str, Message | None] = {}
    for record in records[topic.name]:
        if record.key is not None:
            rows[record.key.decode()] = None if record.value is None else topic.model.from_json(record.value)
    return {key: row for key, row in rows.items() if row is not None}
