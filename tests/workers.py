"""Real workers in the test's own process, and what a test asks of them and of the topics."""

import asyncio
import contextlib
import inspect
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, cast
from urllib.parse import quote

import aiohttp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as Physical
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata
from prometheus_client import CollectorRegistry
from yarl import URL

from ecosystem.services import CORE, build
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.errors import KeyNotOwned
from runtime.hosting import ServiceDefinition
from runtime.kafka import aiokafka_internals
from runtime.metrics.loop import LoopMetrics
from runtime.model.topology import Topology
from runtime.worker.worker import Worker
from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY
from validators.inventory.state import STOCK

PATIENCE_S = 180.0
"""How long anything may take before a test fails: generous, for these machines are noisy."""

WAIT_MS = 60_000
"""How long a request waits at a worker: the most that it may ask for."""


async def until(condition: Callable[[], Any], what: str = "condition", every: float = 0.02) -> Any:
    """Waits until the condition, a coroutine function perhaps, holds, and returns what it gave."""
    result = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = condition()
                result = await found if inspect.isawaitable(found) else found
                if result:
                    return result
                await asyncio.sleep(every)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {PATIENCE_S:g} s, is {result!r}") from None


class Answer(NamedTuple):
    """What an HTTP request came back with."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def _settled(consumer: AIOKafkaConsumer, ends: Mapping[Physical, int]) -> bool:
    stable = await aiokafka_internals.log_ends(consumer, ends, committed=True)
    return all(stable[tp] >= end for tp, end in ends.items())


class Remote:
    """A worker in a process of its own, as far as it is asked by HTTP."""

    def __init__(self, url: str) -> None:
        self.url = URL(url)


class Restores(LoopMetrics):
    """Metrics of a worker whose restores a test looks at."""

    def __init__(self, restored: Callable[[int], None]) -> None:
        super().__init__(CollectorRegistry())
        self.restored = restored  # type: ignore[method-assign]


def _stock(worker: Worker, product: str) -> int | None:
    try:
        row = worker.read(STOCK, product)
    except KeyNotOwned:
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

    async def __aenter__(self) -> Self:
        # No limit to connections: hundreds of clients may wait at once, and somebody has to post what they wait for.
        connector = aiohttp.TCPConnector(limit=0)
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        self.producer = AIOKafkaProducer(bootstrap_servers=self.servers, acks="all")
        await self.producer.start()
        self._stack.push_async_callback(self.producer.stop)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()
        await self._tidy_up()

    async def configure(self, topic: str, config: dict[str, str]) -> None:
        """Changes the configuration of a topic."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.servers)
        await admin.start()
        try:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.prefix + topic, configs=config)])
        finally:
            await admin.close()

    async def _tidy_up(self) -> None:
        """Removes the topics of this test: a broker that keeps those of all tests gets slower with each.

        One that does not get round to it in time is no fault of what was tested.
        """
        admin = AIOKafkaAdminClient(bootstrap_servers=self.servers, request_timeout_ms=30_000)
        with contextlib.suppress(KafkaError):
            await admin.start()
            mine = [topic for topic in await admin.list_topics() if topic.startswith(self.prefix)]
            if mine:
                await admin.delete_topics(mine, timeout_ms=20_000)
        await admin.close()

    def settings(self, name: str = "w0", **changes: Any) -> Settings:
        return Settings(
            **{
                "kafka_bootstrap_servers": self.servers,
                "topic_prefix": self.prefix,
                "http_port": 0,
                "state_dir": self.folder / name,
                # Workers here share their loop with the test: a machine that stalls must not cost them partitions.
                "session_timeout_s": 30.0,
                "heartbeat_interval_s": 0.5,
                "produce_timeout_s": PATIENCE_S,
                "database_timeout_s": 30.0,
                "unknown_products": "pass",  # no product is announced to the core alone
                **changes,
            }
        )

    async def start(
        self,
        *services: str,
        name: str = "w0",
        ready: bool = True,
        wrap: Callable[[ServiceDefinition], ServiceDefinition] = lambda hosted: hosted,
        restored: Callable[[int], None] | None = None,
        **changes: Any,
    ) -> Worker:
        """A worker with these services, the core if none is named; by default once it has taken over its partitions.

        `wrap` may replace its services, `restored` is told how many records takeovers restored.
        """
        settings = self.settings(name, **changes)
        worker = Worker([wrap(hosted) for hosted in build(services or CORE, settings)], settings)
        if restored is not None:
            worker.metrics = Restores(restored)
        self._stack.push_async_callback(self.stop, worker)
        await worker.start()
        self.workers.append(worker)
        if ready:
            await self.ready(worker)
        return worker

    async def shared(self, *workers: Worker) -> None:
        """Waits until the partitions are shared out among these workers."""
        await until(
            lambda: (
                sum([len(w.readiness()["partitions"]) for w in workers]) == 4
                and all([w.readiness()["ready"] and w.readiness()["partitions"] for w in workers])
            ),
            "partitions shared",
        )

    async def start_core(
        self, *, apart: bool, orders: int = 1, only: Sequence[str] = CORE, **changes: Any
    ) -> list[Worker]:
        """The core, composed or apart (each service in a worker of its own), with so many workers that answer HTTP.

        Returns those; `workers` has all of them.
        """
        front = ("orders",) if apart else only
        compositions = [(front, f"w{n}") for n in range(orders)]
        compositions += [((service,), service) for service in only if service not in front]
        workers = await asyncio.gather(
            *(self.start(*services, name=name, ready=False, **changes) for services, name in compositions)
        )
        await self.ready(*workers)
        await self.shared(*workers[:orders])
        return workers[:orders]

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

    async def send_raw(self, topic: str, key: bytes | None, value: bytes | None, partitions: int = 4) -> RecordMetadata:
        partition = partition_of(key or b"", partitions)
        return await self.producer.send_and_wait(self.prefix + topic, value, key=key, partition=partition)

    async def records(self, topic: str, *, committed: bool = True, partitions: int = 4) -> list[Any]:
        """All records of a topic as they are now, by partition; `committed`: once nothing is open there."""
        async with self.consumer(committed=committed) as consumer:
            tps = [Physical(self.prefix + topic, p) for p in range(partitions)]
            consumer.assign(tps)
            ends = await aiokafka_internals.log_ends(consumer, tps, committed=False)
            if committed:
                # Its writer knows of a commit a moment before the markers make it readable for others.
                await until(lambda: _settled(consumer, ends), f"no transaction open on {topic}")
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

    async def rows(self, table: Any) -> dict[str, Any]:
        """The rows of a table as its changelog tells them: those of every worker, and only what is committed."""
        rows: dict[str, Any] = {}
        for record in await self.records(table.changelog):
            rows[record.key.decode()] = table.model.from_json(record.value) if record.value is not None else None
        return {key: row for key, row in rows.items() if row is not None}

    async def progress(self, group: str) -> dict[Physical, tuple[int, int]]:
        """Where a consumer group stands: by partition its committed offset, and the end of the log."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.servers)
        await admin.start()
        try:
            found = await admin.list_consumer_group_offsets(self.prefix + group)
        finally:
            await admin.close()
        async with self.consumer() as consumer:
            ends = await consumer.end_offsets(list(found))
        return {tp: (committed.offset, ends[tp]) for tp, committed in found.items()}

    async def caught_up(self, *groups: str) -> None:
        """Waits until these groups have committed that they read all there is, also what they wrote for each other."""
        inputs = {group: self._inputs(group) for group in groups}
        topics = frozenset(tp for tps in inputs.values() for tp in tps)

        async def behind() -> dict[str, list[Physical]]:
            read = {group: await self.progress(group) for group in groups}
            # After that: what a group has written by then, another one has not read.
            async with self.consumer(committed=False) as consumer:
                ends = await aiokafka_internals.log_ends(consumer, topics, committed=False)
            return {
                group: [tp for tp in tps if (read[group][tp][0] if tp in read[group] else 0) < ends[tp]]
                for group, tps in inputs.items()
            }

        async def done() -> bool:
            return not any((await behind()).values())

        await until(done, f"{', '.join(groups)} caught up", every=0.1)

    def _inputs(self, group: str) -> list[Physical]:
        """All partitions that a group reads, also those of which it has never committed anything."""
        settings = self.settings()
        plan = Topology(tuple(h.service for h in build(group.split("+"), settings)))
        return [Physical(self.prefix + topic, p) for topic in plan.consumed for p in range(settings.partitions)]

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

    async def ask(self, worker: Worker | Remote, method: str, path: str, **options: Any) -> Answer:
        """A request as it stands, once: `path` is percent-encoded already, `options` are aiohttp's."""
        url = URL(f"{worker.url.origin()}/{path.lstrip('/')}", encoded=True)
        async with self.http.request(method, url, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def repeated(self, worker: Worker | Remote, method: str, path: str, **options: Any) -> Answer:
        """A request that may be repeated, as a client puts it: again, as long as it is told to come again."""

        async def answered() -> Answer | None:
            answer = await self.ask(worker, method, path, **options)
            return answer if answer.status != 503 else None

        return cast("Answer", await until(answered, f"an answer to {method} {path}", every=0.2))

    async def post(self, worker: Worker | Remote, **body: Any) -> tuple[int, Any]:
        """Posts an order; with an id it is repeated as long as it takes."""
        put = self.repeated if "id" in body else self.ask
        answer = await put(worker, "POST", f"/v1/orders?timeout={WAIT_MS}", json=body)
        return answer.status, answer.json()

    async def get(self, worker: Worker | Remote, order_id: str, *then: str, timeout: int = WAIT_MS) -> tuple[int, Any]:
        """An order, or with "validated" what became of it, within so many milliseconds."""
        path = "/".join([quote(order_id, safe=""), *then])
        answer = await self.repeated(worker, "GET", f"/v1/orders/{path}?timeout={timeout}")
        return answer.status, answer.json()

    async def outcome(self, worker: Worker | Remote, order_id: str) -> Any:
        """The decided order; fails if it is not decided in time."""

        async def decided() -> Any:
            status, body = await self.get(worker, order_id, "validated")
            assert status in {200, 404, 504}, body
            return body if status == 200 else None

        return await until(decided, f"outcome of {order_id}")
