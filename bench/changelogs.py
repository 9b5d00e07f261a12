"""Changelogs as a composed core leaves them, of as many orders as wanted, without deciding each of them.

Some orders are decided by the real processors; their rows, under new order ids, are written as the checkpoint writes
them: a transaction a batch.
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
from runtime.model.records import Write
from runtime.model.topology import Topology
from runtime.testing import TopologyTestDriver
from schemas.identifiers import new_order_id
from schemas.messages import Order, StockLevel
from schemas.topics import ORDERS, WAREHOUSE_INVENTORY

DECIDED = 2000
AT_ONCE = 3
_OF_ORDERS = "orders-"
"""Tables whose rows lie in the partition of their order id, which is that of their key."""


class Changelogs:
    """The rows of decided orders, and copies of them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        services = [hosted.service for hosted in build(CORE, settings)]
        self.topology = Topology(tuple(services))
        topology = TopologyTestDriver(*services, partitions=settings.partitions)
        now = topology.now = datetime.now(UTC)  # or what is remembered for a while would be forgotten at once
        products = [f"product-{n}" for n in range(100)]
        topology.send(WAREHOUSE_INVENTORY, *[StockLevel(product=p, count=10**9) for p in products])
        self._ids = [new_order_id() for _ in range(DECIDED)]
        topology.send(
            ORDERS,
            *[
                Order(id=id_, customer_id=n, product=products[n % 100], quantity=1, price=9.99, created_at=now)
                for n, id_ in enumerate(self._ids)
            ],
        )
        self._rows: dict[str, list[tuple[str, int, bytes, bytes]]] = {id_: [] for id_ in self._ids}
        self._once: list[Write] = []
        for (table, partition), store in topology.workers[0].stores.stores.items():
            for key, value in store.items():
                id_ = key.decode() if key.decode() in self._rows else json.loads(value).get("lastOrder")
                if id_ in self._rows:
                    self._rows[id_].append((table, partition, key, value))
                else:
                    self._once.append(Write(self.topology.tables[table].changelog, partition, key, value))

    @property
    def records_an_order(self) -> float:
        return sum(map(len, self._rows.values())) / DECIDED

    async def write(self, orders: int, batch: int) -> list[str]:
        """Writes the rows of so many orders, a transaction for each `batch` of them. Returns some of the ids."""
        await ensure_topics(self._settings, topics_of(self.topology))
        producers = [
            KafkaTransactionalProducer(self._settings, self.topology.group, f"changelogs-{n}", SizeLimits())
            for n in range(AT_ONCE)
        ]
        await asyncio.gather(*(producer.start() for producer in producers))
        batches = self._batches(orders, batch)
        sample: list[str] = []

        async def send(producer: KafkaTransactionalProducer) -> None:
            for ids, writes in batches:
                await producer.begin()
                await producer.send(writes)
                await producer.commit()
                sample.append(ids[0])

        try:
            await asyncio.gather(*(send(producer) for producer in producers))
        finally:
            await asyncio.gather(*(producer.end() for producer in producers))
        return sample[:: max(1, len(sample) // 1000)]

    def _batches(self, orders: int, batch: int) -> Iterator[tuple[list[str], list[Write]]]:
        first = list(self._once)
        for start in range(0, orders, batch):
            ids, writes = [], first
            for number in range(start, min(start + batch, orders)):
                id_ = new_order_id()
                ids.append(id_)
                writes += self._copy(self._ids[number % DECIDED], id_, number // DECIDED)
            yield ids, writes
            first = []

    def _copy(self, template: str, id_: str, round_: int) -> Iterator[Write]:
        old, new = template.encode(), id_.encode()
        for table, partition, key, value in self._rows[template]:
            if key == old:
                key = new
            else:  # a customer's: ten orders each
                key = b"%d" % (int(key) + DECIDED * (round_ // 10))
            if table.startswith(_OF_ORDERS):
                partition = partition_of(new, self._settings.partitions)
            yield Write(self.topology.tables[table].changelog, partition, key, value.replace(old, new))
