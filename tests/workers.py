"""Real workers in the test's own process, and what a test asks of them and of the topics."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as Physical

from ecosystem.services import CORE, build
from runtime.hosting import NotHere
from runtime.partitioning import partition_of
from runtime.settings import Settings
from runtime.worker import Worker
from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY
from validators.inventory.state import STOCK

PATIENCE_S = 60.0
"""How long anything may take before a test fails: generous, for these machines are noisy."""


async def until(condition: Callable[[], Any], what: str = "condition", every: float = 0.02) -> Any:
    """Waits until the condition holds, and returns what it gave."""
    async with asyncio.timeout(PATIENCE_S):
        while not (result := condition()):
            await asyncio.sleep(every)
    assert result, what
    return result


def _stock(worker: Worker, product: str) -> int | None:
    try:
        row = worker.read(STOCK, product)
    except NotHere:
        return None
    return None if row is None else row.count


class Deployment:
    """A broker, a topic prefix of its own, and the workers that a test starts there."""

    def __init__(self, servers: str, prefix: str, folder: Path) -> None:
        self.servers = servers
        self.prefix = prefix
        self.folder = folder
        self.workers: list[Worker] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Deployment":
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession())
        self.producer = AIOKafkaProducer(bootstrap_servers=self.servers, acks="all")
        await self.producer.start()
        self._stack.push_async_callback(self.producer.stop)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def settings(self, name: str = "w0", **changes: Any) -> Settings:
        return Settings(
            **{
                "kafka_bootstrap_servers": self.servers,
                "topic_prefix": self.prefix,
                "http_port": 0,
                "state_dir": self.folder / name,
                "session_timeout_s": 6.0,
                "heartbeat_interval_s": 0.5,
                **changes,
            }
        )

    async def start(self, *services: str, name: str = "w0", ready: bool = True, **changes: Any) -> Worker:
        """A worker with these services, the core if none is named; by default once it has taken over its partitions."""
        settings = self.settings(name, **changes)
        worker = Worker(build(services or CORE, settings), settings)
        self._stack.push_async_callback(self.stop, worker)
        await worker.start()
        self.workers.append(worker)
        if ready:
            await self.ready(worker)
        return worker

    async def stop(self, worker: Worker) -> None:
        """Stops a worker; once is enough."""
        if worker in self.workers:
            self.workers.remove(worker)
            await worker.stop()

    async def ready(self, *workers: Worker) -> None:
        """Waits until all are ready and every partition is owned by one of them."""
        await until(lambda: all(w.readiness()["ready"] for w in workers), "workers ready")

    async def send(self, topic: Any, *values: Any) -> None:
        """Writes messages as an outsider."""
        for value in values:
            await self.send_raw(topic.name, topic.key(value).encode(), value.to_json())

    async def stock(self, **counts: int) -> None:
        """Announces stock levels, and waits until the inventory service knows them: orders do not wait for stock."""
        await self.send(WAREHOUSE_INVENTORY, *[StockLevel(product=p, count=count) for p, count in counts.items()])
        for product, count in counts.items():
            await until(lambda: any([_stock(w, product) == count for w in self.workers]), f"stock of {product}")  # noqa: B023

    async def send_raw(self, topic: str, key: bytes | None, value: bytes | None, partitions: int = 4) -> None:
        partition = partition_of(key or b"", partitions)
        await self.producer.send_and_wait(self.prefix + topic, value, key=key, partition=partition)

    async def records(self, topic: str, *, committed: bool = True, partitions: int = 4) -> list[Any]:
        """All records of a topic as they are now, partition by partition."""
        async with self.consumer(committed=committed) as consumer:
            tps = [Physical(self.prefix + topic, p) for p in range(partitions)]
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            for tp, start in (await consumer.beginning_offsets(tps)).items():
                consumer.seek(tp, start)
            found: list[Any] = []
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for messages in (await consumer.getmany(timeout_ms=200)).values():
                    found += messages
            return sorted(found, key=lambda r: (r.partition, r.offset))

    async def values(self, topic: Any) -> list[Any]:
        """All readable messages of a topic."""
        return [topic.model.from_json(r.value) for r in await self.records(topic.name) if r.value is not None]

    @contextlib.asynccontextmanager
    async def consumer(self, *, committed: bool = True) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.servers,
            enable_auto_commit=False,
            isolation_level="read_committed" if committed else "read_uncommitted",
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()

    async def post(self, worker: Worker, **body: Any) -> tuple[int, Any]:
        async with self.http.post(worker.url / "v1/orders", json=body) as response:
            return response.status, await response.json(content_type=None)

    async def get(self, worker: Worker, path: str, **query: Any) -> tuple[int, Any]:
        async with self.http.get(worker.url / "v1/orders" / path, params=query) as response:
            return response.status, await response.json(content_type=None)

    async def outcome(self, worker: Worker, order_id: str) -> Any:
        """The decided order; fails if it is not decided in time."""
        status, body = await self.get(worker, f"{order_id}/validated", timeout=int(PATIENCE_S * 1000))
        assert status == 200, body
        return body
