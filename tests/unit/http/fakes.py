"""Workers without Kafka: hosts that hold rows in memory, served on real sockets, and asked by a real client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from orders_service.http import endpoints
from orders_service.processors import OrderAggregator
from orders_service.state import ORDERS_VIEW, OrderView
from runtime.common.settings import Settings
from runtime.errors import BrokerUnavailable, KeyNotOwned
from runtime.hosting import ServiceDefinition, StaleRow
from runtime.http.runner import Runner
from runtime.http.server import application
from runtime.model.service import Service, Table
from runtime.model.watch import Watch, Watches
from runtime.tracing.tracer import Tracer
from schemas.messages import Order, OrderState
from schemas.topics import Topic

SERVICE = Service("orders", inputs=(), outputs=())
ENDPOINTS = endpoints(OrderAggregator((), timedelta(minutes=1)))
HOSTED = ServiceDefinition(SERVICE, ENDPOINTS)
ORDER = {"customerId": 7, "product": "book", "quantity": 2, "price": 9.99}


def answered_by(handler: Callable[[web.Request], Awaitable[web.Response]]) -> ServiceDefinition:
    """A service that answers all requests for orders by this function."""

    async def handle(_: Any, request: web.Request) -> web.Response:
        return await handler(request)

    return ServiceDefinition(SERVICE, tuple(replace(endpoint, handler=handle, fast=None) for endpoint in ENDPOINTS))


class Cluster:
    """What several hosts share: the owner of the keys, and the rows, which move with the ownership."""

    def __init__(self) -> None:
        self.hosts: list[FakeHost] = []
        self.owner: URL | None = None
        self.rows: dict[str, OrderView] = {}
        self.standbys: list[URL] = []

    def move(self, owner: URL | None) -> None:
        """Moves all keys to another worker, or to none, and notifies every worker, as a rebalance does."""
        self.owner = owner
        for host in self.hosts:
            host.watches.touch_all()

    def put(self, view: OrderView) -> None:
        """Applies a row, as the loop does after a commit."""
        assert view.order is not None
        self.rows[view.order.id] = view
        for host in self.hosts:
            host.watches.changed(ORDERS_VIEW.name, {view.order.id.encode(): view.to_json()})


class FakeHost:
    """Implements `runtime.hosting.Host`. What is produced or transacted is in the view at once."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.cluster = cluster
        self.settings = settings
        self.url = URL()
        self.stopping = False
        self.watches = Watches()
        self.produced: list[Order] = []
        self.broken = False
        self.behind = False
        """Whether a backlog found after the rebalance is not read yet."""
        self.here = True
        """Whether the state of owned keys is here: False until it is restored."""
        self.gate = asyncio.Event()
        """`produce` and `submit` wait until it is set."""
        self.gate.set()
        self.transactions = 0
        self.copies: dict[str, StaleRow[OrderView]] = {}
        self.asked = 0
        """Number of stale reads."""
        cluster.hosts.append(self)

    def read(self, table: Table[Any], key: str) -> Any:
        assert table is ORDERS_VIEW
        if self.cluster.owner != self.url or not self.here:
            raise KeyNotOwned
        return self.cluster.rows.get(key)

    def owns(self, key: str) -> bool:
        return self.cluster.owner == self.url and self.here and not self.behind

    async def submit(self, table: Table[Any], key: str, decide: Callable[[Any], Any]) -> Any:
        if not self.owns(key):
            raise KeyNotOwned
        return await asyncio.shield(self._transact(key, decide))  # the loop processes it even if the client disconnects

    async def _transact(self, key: str, decide: Callable[[Any], Any]) -> Any:
        self.transactions += 1
        await self.gate.wait()
        if not self.owns(key):
            raise KeyNotOwned
        if self.broken:
            raise BrokerUnavailable
        return decide(self)

    def get(self, table: Table[Any], key: str) -> Any:
        """As the context of a transaction."""
        return self.read(table, key)

    def send(self, topic: Topic[Any], value: Any) -> None:
        """As the context of a transaction."""
        self.produced.append(value)
        self.cluster.put(OrderView(order=value))

    def read_stale(self, table: Table[Any], key: str) -> StaleRow[Any] | None:
        assert table is ORDERS_VIEW
        self.asked += 1
        return self.copies.get(key)

    def standbys(self, key: str) -> Sequence[URL]:
        return self.cluster.standbys

    def watch(self, table: Table[Any], key: str, touched: Callable[[], object] | None = None) -> Watch:
        return self.watches.watch(table, key, touched)

    def owner(self, key: str) -> URL | None:
        return self.cluster.owner

    async def produce(self, topic: Topic[Any], value: Any) -> None:
        await self.gate.wait()
        if self.broken:
            raise BrokerUnavailable
        self.send(topic, value)

    def readiness(self) -> Mapping[str, Any]:
        return {"ready": not self.stopping, "partitions": [0, 1]}

    def stop(self) -> None:
        self.stopping = True
        self.watches.touch_all()


class Running:
    """A host with a running server, and a client of it."""

    def __init__(self, host: FakeHost, runner: Runner, session: aiohttp.ClientSession) -> None:
        self.host, self._runner, self._session = host, runner, session

    def request(self, method: str, path: str, **more: Any) -> Any:
        """Sends `path` unchanged, with its percent-encoding."""
        return self._session.request(method, URL(f"{self.host.url.origin()}{path}", encoded=True), **more)

    def get(self, path: str, **more: Any) -> Any:
        return self.request("GET", path, **more)

    def post(self, body: Any, path: str = "/v1/orders", **more: Any) -> Any:
        return self.request("POST", path, **({"data": body} if isinstance(body, bytes) else {"json": body}), **more)

    async def raw(self, sent: bytes, *, ends: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Sends bytes on a new connection; returns status, headers and body of the response.

        `ends`: the server must close the connection after it.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.host.url.port)
        try:
            writer.write(sent)
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            status, _, lines = head.partition("\r\n")
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines.strip().split("\r\n"))}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if ends:
                async with asyncio.timeout(60):
                    assert await reader.read() == b""
            return int(status.split()[1]), headers, body
        finally:
            writer.close()

    @property
    def by_aiohttp(self) -> int:
        """Requests that aiohttp has answered, in place of the fast path."""
        assert self._runner.server is not None
        return self._runner.server.requests_count

    @property
    def connections(self) -> list[Any]:
        """The open connections of clients."""
        assert self._runner.server is not None
        return self._runner.server.connections

    @property
    def sites(self) -> set[Any]:
        """The address that it listens on."""
        return self._runner.sites

    async def drain(self, seconds: float) -> None:
        """Accepts no new connections."""
        await self._runner.drain(seconds)

    async def die(self) -> None:
        """Closes the port and cuts every connection."""
        server = self._runner.server
        for site in list(self._runner.sites):
            await site.stop()
        for connection in server.connections if server else ():
            connection.force_close()


@asynccontextmanager
async def running(
    cluster: Cluster,
    hosted: Iterable[ServiceDefinition] = (HOSTED,),
    tracer: Tracer | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """A worker on its own port, with these settings. The first one owns all keys."""
    host = FakeHost(cluster, Settings(**{"http_allowed_hosts": "x", **settings}))  # the `Host` of raw requests
    runner = Runner(application(host, tuple(hosted), tracer), shutdown_timeout=1)
    await runner.setup()
    await runner.listen("127.0.0.1", 0)
    host.url = URL.build(scheme="http", host="127.0.0.1", port=runner.addresses[0][1])
    if cluster.owner is None:
        cluster.owner = host.url
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=180)) as session:
        try:
            yield Running(host, runner, session)
        finally:
            host.stop()
            host.gate.set()
            await session.close()
            await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    """Returns once the condition holds. Raises `TimeoutError` after a minute."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


def decided(order: Order, state: OrderState = OrderState.VALIDATED, *reasons: str) -> OrderView:
    """The row of the order once it is in this state."""
    return OrderView(order=order.model_copy(update={"state": state}), reasons=reasons)
