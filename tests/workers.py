"""Real workers in the process of the test, and access to their topics."""

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
"""Seconds that any wait may take before a test fails. Generous: test machines are busy."""

WAIT_MS = 60_000
"""`timeout` of requests in milliseconds: the maximum."""


async def until(condition: Callable[[], Any], what: str = "condition", every: float = 0.02) -> Any:
    """Waits until the condition, a function or coroutine function, is true. Returns its result."""
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
    """The answer to an HTTP request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def _settled(consumer: AIOKafkaConsumer, ends: Mapping[Physical, int]) -> bool:
    stable = await aiokafka_internals.log_ends(consumer, ends, committed=True)
    return all(stable[tp] >= end for tp, end in ends.items())


class Remote:
    """A worker in another process, reached by HTTP."""

    def __init__(self, url: str) -> None:
        self.url = URL(url)


class Restores(LoopMetrics):
    """Metrics that report the number of restored records to a test."""

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
    """A topic prefix on a broker, and the workers that a test starts with it."""

    def __init__(self, servers: str, prefix: str, folder: Path) -> None:
        self.servers = servers
        self.prefix = prefix
        self.folder = folder
        self.workers: list[Worker] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        # No limit of connections: hundreds of requests may wait for an order that another one posts.
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
        """Deletes the topics of this test: many topics slow a broker down.

        A timeout of the deletion does not fail the test.
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
                # Workers share the event loop with the test: a busy machine must not cost them their partitions.
                "session_timeout_s": 30.0,
                "heartbeat_interval_s": 0.5,
                "produce_timeout_s": PATIENCE_S,
                "database_timeout_s": 30.0,
                "unknown_products": "pass",  # the core alone has no product service
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
        more: Sequence[ServiceDefinition] = (),
        **changes: Any,
    ) -> Worker:
        """Starts a worker with these services, by default the core, and waits until it is ready.

        `wrap` may replace its services; `restored` is called with the number of records of each restore. `more` are
        further services; a worker without names runs the core, unless it has those.
        """
        settings = self.settings(name, **changes)
        names = services or (() if more else CORE)
        worker = Worker([wrap(hosted) for hosted in (*build(names, settings), *more)], settings)
        if restored is not None:
            worker.metrics = Restores(restored)
        self._stack.push_async_callback(self.stop, worker)
        await worker.start()
        self.workers.append(worker)
        if ready:
            await self.ready(worker)
        return worker

    async def shared(self, *workers: Worker) -> None:
        """Waits until the partitions are distributed over these workers."""
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
        """Starts the core, composed or `apart` (a worker for each service), with a number of `orders` workers.

        Returns the `orders` workers. `workers` has all.
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
        """Stops a worker. May be called twice."""
        if worker in self.workers:
            self.workers.remove(worker)
            await worker.stop()

    async def ready(self, *workers: Worker) -> None:
        """Waits until all workers are ready."""
        await until(lambda: all(w.readiness()["ready"] for w in workers), "workers ready")

    async def send(self, topic: Any, *values: Any) -> None:
        """Writes messages as a foreign producer."""
        for value in values:
            await self.send_raw(topic.name, topic.key(value).encode(), value.to_json())

    async def stock(self, **counts: int) -> None:
        """Publishes stock levels, and waits until the inventory service has processed them."""
        await self.send(WAREHOUSE_INVENTORY, *[StockLevel(product=p, count=count) for p, count in counts.items()])
        for product, count in counts.items():
            await until(lambda: any([_stock(w, product) == count for w in self.workers]), f"stock of {product}")  # noqa: B023

    async def send_raw(self, topic: str, key: bytes | None, value: bytes | None, partitions: int = 4) -> RecordMetadata:
        partition = partition_of(key or b"", partitions)
        return await self.producer.send_and_wait(self.prefix + topic, value, key=key, partition=partition)

    async def records(self, topic: str, *, committed: bool = True, partitions: int = 4) -> list[Any]:
        """All records of a topic by partition. `committed`: waits until no transaction is open."""
        async with self.consumer(committed=committed) as consumer:
            tps = [Physical(self.prefix + topic, p) for p in range(partitions)]
            consumer.assign(tps)
            ends = await aiokafka_internals.log_ends(consumer, tps, committed=False)
            if committed:
                # A producer knows of its commit before the transaction markers are written.
                await until(lambda: _settled(consumer, ends), f"no transaction open on {topic}")
            for tp, start in (await consumer.beginning_offsets(tps)).items():
                consumer.seek(tp, start)
            found: list[Any] = []
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for messages in (await consumer.getmany(timeout_ms=200)).values():
                    found += messages
            return sorted(found, key=lambda r: (r.partition, r.offset))

    async def values(self, topic: Any) -> list[Any]:
        """All messages of a topic."""
        return [topic.model.from_json(r.value) for r in await self.records(topic.name) if r.value is not None]

    async def rows(self, table: Any) -> dict[str, Any]:
        """The committed rows of a table of all workers, read from its changelog."""
        rows: dict[str, Any] = {}
        for record in await self.records(table.changelog):
            rows[record.key.decode()] = table.model.from_json(record.value) if record.value is not None else None
        return {key: row for key, row in rows.items() if row is not None}

    async def progress(self, group: str) -> dict[Physical, tuple[int, int]]:
        """Committed offset and log end offset of a consumer group, by partition."""
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
        """Waits until these groups have committed the ends of all their inputs, including their own output."""
        inputs = {group: self._inputs(group) for group in groups}
        topics = frozenset(tp for tps in inputs.values() for tp in tps)

        async def behind() -> dict[str, list[Physical]]:
            read = {group: await self.progress(group) for group in groups}
            # Read after the commits: otherwise a group may write records in between that another has not read.
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
        """All input partitions of a group, also those without a committed offset."""
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
        """Sends a request once. `path` is percent-encoded, `options` are aiohttp's."""
        url = URL(f"{worker.url.origin()}/{path.lstrip('/')}", encoded=True)
        async with self.http.request(method, url, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def repeated(self, worker: Worker | Remote, method: str, path: str, **options: Any) -> Answer:
        """Sends an idempotent request, repeated while the answer is 503."""

        async def answered() -> Answer | None:
            answer = await self.ask(worker, method, path, **options)
            return answer if answer.status != 503 else None

        return cast("Answer", await until(answered, f"an answer to {method} {path}", every=0.2))

    async def post(self, worker: Worker | Remote, **body: Any) -> tuple[int, Any]:
        """Posts an order. With an id, the request is repeated while the answer is 503."""
        put = self.repeated if "id" in body else self.ask
        answer = await put(worker, "POST", f"/v1/orders?timeout={WAIT_MS}", json=body)
        return answer.status, answer.json()

    async def get(self, worker: Worker | Remote, order_id: str, *then: str, timeout: int = WAIT_MS) -> tuple[int, Any]:
        """Reads an order, or with "validated" its outcome. `timeout` is in milliseconds."""
        path = "/".join([quote(order_id, safe=""), *then])
        answer = await self.repeated(worker, "GET", f"/v1/orders/{path}?timeout={timeout}")
        return answer.status, answer.json()

    async def outcome(self, worker: Worker | Remote, order_id: str) -> Any:
        """Waits for the outcome of an order."""

        async def decided() -> Any:
            status, body = await self.get(worker, order_id, "validated")
            assert status in {200, 404, 504}, body
            return body if status == 200 else None

        return await until(decided, f"outcome of {order_id}")
