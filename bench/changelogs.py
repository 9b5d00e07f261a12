"""Writes the changelogs of a composed core for any number of orders, without processing each order.

A few orders are processed by the real processors. Their rows are copied under new order ids and written as a checkpoint
writes them: one transaction per batch.
"""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime

from ecosystem.services import CORE, build
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.kafka.producers import KafkaTransactionalProducer
from runtime.kafka.topics import ensure_topics, topics_of
from runtime.model.limits import SizeLimits
from runtime.model.records import NO_MEMBER, Write
from runtime.model.topology import Topology
from runtime.testing import TopologyTestDriver
from schemas.identifiers import new_order_id
from schemas.messages import Order, StockLevel
from schemas.topics import ORDERS, WAREHOUSE_INVENTORY

TEMPLATES = 2000
"""Orders that are processed, and then copied."""
PRODUCERS = 3
"""Producers that write at the same time."""
_BY_ORDER = "orders-"
"""Prefix of the tables that are keyed and partitioned by order id."""


class Changelogs:
    """The rows of processed orders, as templates for any number of orders."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        services = [definition.service for definition in build(CORE, settings)]
        self.topology = Topology(tuple(services))
        driver = TopologyTestDriver(*services, partitions=settings.partitions)
        now = driver.now = datetime.now(UTC)  # otherwise the rows of TTL tables would expire at once
        products = [f"product-{n}" for n in range(100)]
        driver.send(WAREHOUSE_INVENTORY, *[StockLevel(product=p, count=10**9) for p in products])
        self._ids = [new_order_id() for _ in range(TEMPLATES)]
        driver.send(
            ORDERS,
            *[
                Order(id=id_, customer_id=n, product=products[n % 100], quantity=1, price=9.99, created_at=now)
                for n, id_ in enumerate(self._ids)
            ],
        )
        self._rows: dict[str, list[tuple[str, int, bytes, bytes]]] = {id_: [] for id_ in self._ids}
        self._shared_rows: list[Write] = []
        for (table, partition), store in driver.workers[0].stores.stores.items():
            for key, value in store.items():
                id_ = key.decode() if key.decode() in self._rows else json.loads(value).get("lastOrder")
                if id_ in self._rows:
                    self._rows[id_].append((table, partition, key, value))
                else:
                    self._shared_rows.append(Write(self.topology.tables[table].changelog, partition, key, value))

    @property
    def records_per_order(self) -> float:
        return sum(map(len, self._rows.values())) / TEMPLATES

    async def write(self, orders: int, batch: int) -> list[str]:
        """Writes the rows of `orders` orders, `batch` orders per transaction. Returns a sample of their ids."""
        await ensure_topics(self._settings, topics_of(self.topology))
        producers = [
            KafkaTransactionalProducer(self._settings, self.topology.group, f"changelogs-{n}", SizeLimits())
            for n in range(PRODUCERS)
        ]
        await asyncio.gather(*(producer.start() for producer in producers))
        batches = self._batches(orders, batch)
        sample: list[str] = []

        async def send(producer: KafkaTransactionalProducer) -> None:
            for ids, writes in batches:
                await producer.transact([writes], {}, NO_MEMBER)
                sample.append(ids[0])

        try:
            await asyncio.gather(*(send(producer) for producer in producers))
        finally:
            await asyncio.gather(*(producer.end() for producer in producers))
        return sample[:: max(1, len(sample) // 1000)]

    def _batches(self, orders: int, batch: int) -> Iterator[tuple[list[str], list[Write]]]:
        first = list(self._shared_rows)
        for start in range(0, orders, batch):
            ids, writes = [], first
            for number in range(start, min(start + batch, orders)):
                id_ = new_order_id()
                ids.append(id_)
                writes += self._copy(self._ids[number % TEMPLATES], id_, number // TEMPLATES)
            yield ids, writes
            first = []

    def _copy(self, template: str, id_: str, cycle: int) -> Iterator[Write]:
        old, new = template.encode(), id_.encode()
        for table, partition, key, value in self._rows[template]:
            if key == old:
                key = new
            else:  # keyed by customer: ten orders each
                key = b"%d" % (int(key) + TEMPLATES * (cycle // 10))
            if table.startswith(_BY_ORDER):
                partition = partition_of(new, self._settings.partitions)
            yield Write(self.topology.tables[table].changelog, partition, key, value.replace(old, new))
