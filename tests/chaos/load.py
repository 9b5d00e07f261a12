"""Clients that post orders at a steady rate, read some, cancel some, and record the answers."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from schemas.identifiers import new_order_id
from schemas.messages import OrderState, StockLevel
from schemas.topics import WAREHOUSE_INVENTORY
from tests.chaos.fleet import Fleet, Process
from tests.workers import until

STOCK = {"UNDERPANTS": 400, "JUMPERS": 1_000_000, "STOCKINGS": 100}
"""Stock by product. Some products have so little that orders fail in each campaign."""

_PATIENCE = aiohttp.ClientTimeout(30)


class Load:
    """An open loop of clients: a slow answer does not delay the next request. Records requests and answers."""

    def __init__(self, fleet: Fleet, rng: random.Random, rate: float) -> None:
        self._fleet = fleet
        self._rng = rng
        self._rate = rate
        self._http = fleet.deployment.http
        self.sent = 0
        self.acknowledged: dict[str, dict[str, Any]] = {}
        self.refused: Counter[str] = Counter()
        self.broken: set[str] = set()
        """Orders whose connection broke before the answer, and that no other request can have written."""
        self._read: set[str] = set()
        """Orders with an answer other than 200 (exists already)."""
        self.answers: Counter[str] = Counter()
        """Answers to reads of acknowledged orders: counts by status, and whether a standby answered."""
        self.told: dict[str, set[str]] = {}
        """Final states that reads have returned, by order."""
        self.cancels: dict[str, int] = {}
        """Answers to requests to cancel: 200 or 409, by order."""
        self.wrong: list[str] = []
        """Answers that no client may get."""

    async def stock(self) -> None:
        """Publishes the stock."""
        await self._fleet.deployment.send(
            WAREHOUSE_INVENTORY, *[StockLevel(product=product, count=count) for product, count in STOCK.items()]
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends during the `with` block, then waits for the last answers."""
        stop = asyncio.Event()
        clients = asyncio.create_task(self._run(stop))
        try:
            yield
        finally:
            stop.set()
            await clients

    async def _run(self, stop: asyncio.Event) -> None:
        clients: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            order = {
                "id": new_order_id(),
                "customerId": self._rng.randrange(1000),
                "product": self._rng.choice(list(STOCK)),
                "quantity": self._rng.choice((1, 1, 1, 2, -1)),
                "price": self._rng.choice((1, 5, 900)),
            }
            gates = self._rng.sample(self._fleet.gates, min(2, len(self._fleet.gates)))
            client = asyncio.create_task(self._orders(order, gates))
            clients.add(client)
            client.add_done_callback(clients.discard)
            client.add_done_callback(self._ended)
            await asyncio.sleep(1 / self._rate)
        await asyncio.gather(*clients, return_exceptions=True)

    def _ended(self, client: asyncio.Task[None]) -> None:
        if not client.cancelled() and (error := client.exception()):
            self.wrong.append(f"a client failed: {error!r}")

    async def more(self, count: int) -> None:
        """Waits until `count` more orders are acknowledged."""
        wanted = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= wanted, f"{count} more orders acknowledged")

    async def _orders(self, order: dict[str, Any], gates: Sequence[Process]) -> None:
        asks, cancels, after_s = self._rng.random() < 0.3, self._rng.random() < 0.15, self._rng.uniform(0, 4)
        await self._client(order, gates, asks)
        if cancels and order["id"] in self.acknowledged:
            await asyncio.sleep(after_s)
            await self._cancel(order["id"], gates[-1])

    async def _client(self, order: dict[str, Any], gates: Sequence[Process], asks: bool) -> None:
        self.sent += 1
        for gate in gates:  # a client without an answer repeats the request: the id makes it idempotent
            if await self._post(order, gate):
                break
            await asyncio.sleep(1)
        if asks and order["id"] in self.acknowledged:
            await self.ask(order["id"], gates[-1], timeout_ms=5000)

    async def _post(self, order: dict[str, Any], gate: Process) -> bool:
        try:
            async with self._http.post(f"{gate.url}/v1/orders", json=order, timeout=_PATIENCE) as response:
                if response.status != 200:
                    self._read.add(order["id"])
                    self.broken.discard(order["id"])
                if response.status in {200, 201}:
                    self.acknowledged[order["id"]] = order
                    return True
                self.refused[str(response.status)] += 1
                if response.status not in {503, 504}:
                    self.wrong.append(f"{order['id']}: POST answered {response.status}: {await response.text()}")
                elif response.status == 503 and "Retry-After" not in response.headers:
                    self.wrong.append(f"{order['id']}: 503 without Retry-After")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.refused[type(error).__name__] += 1
            if not isinstance(error, aiohttp.ClientConnectorError) and order["id"] not in self._read:
                self.broken.add(order["id"])
        return False

    async def ask(self, id_: str, gate: Process, timeout_ms: int) -> None:
        """Reads the outcome of an acknowledged order."""
        try:
            path = f"/v1/orders/{id_}/validated?timeout={timeout_ms}"
            async with self._http.get(f"{gate.url}{path}", timeout=_PATIENCE) as response:
                standby = " by a standby" if response.headers.get("X-Served-By") == "standby" else ""
                self.answers[f"{response.status}{standby}"] += 1
                if response.status == 200:
                    self.told.setdefault(id_, set()).add((await response.json())["state"])
                elif response.status == 500:
                    self.wrong.append(f"{id_}: GET answered 500: {(await response.text())[:300]}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.answers[type(error).__name__] += 1

    async def _cancel(self, id_: str, gate: Process) -> None:
        try:
            async with self._http.delete(f"{gate.url}/v1/orders/{id_}", timeout=_PATIENCE) as response:
                if response.status in {200, 409}:
                    self.cancels[id_] = response.status
                elif response.status not in {503, 504}:
                    self.wrong.append(f"{id_}: DELETE answered {response.status}: {(await response.text())[:300]}")
        except (aiohttp.ClientError, TimeoutError):
            pass  # cancelled or not

    def wrong_cancels(self, states: Mapping[str, Collection[OrderState]]) -> list[str]:
        """Requests to cancel that were answered otherwise than the orders' announced `states` say."""
        said = {200: "cancelled", 409: "not to be cancelled"}
        return [
            f"{id_}: said to be {said[status]}, is {', '.join(states.get(id_, ()))}"
            for id_, status in self.cancels.items()
            if (status == 200) != (OrderState.CANCELLED in states.get(id_, ()))
        ]
