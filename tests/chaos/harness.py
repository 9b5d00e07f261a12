"""Workers as processes of their own, faults from a seeded schedule, load, and the books checked at the end."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from ecosystem.ports import free_ports
from schemas.identifiers import new_order_id
from schemas.messages import OrderState
from schemas.topics import ORDERS
from tests.workers import Deployment
from validators.inventory.state import RESERVATIONS, STOCK

CORE = ("orders", "fraud", "inventory", "details")
SESSION_S = 6.0


@dataclass
class Process:
    """One worker: its process, and what it takes to start it again on the same state."""

    name: str
    services: tuple[str, ...]
    port: int
    environment: dict[str, str]
    log: Path
    popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "ecosystem.cli", "run", *self.services],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def tell(self, number: int) -> None:
        if self.popen and self.popen.poll() is None:
            self.popen.send_signal(number)

    def end(self, number: int = signal.SIGTERM, patience: float = 20) -> int | None:
        """Sends a signal and waits for the end. Returns the exit code."""
        if self.popen is None:
            return None
        self.tell(signal.SIGCONT)
        self.tell(number)
        try:
            return self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Fleet:
    """The workers of a round."""

    def __init__(self, deployment: Deployment, *compositions: tuple[str, ...], **settings: Any) -> None:
        self.deployment = deployment
        self.processes = [self._process(f"w{n}", services, settings) for n, services in enumerate(compositions)]

    def _process(self, name: str, services: tuple[str, ...], changes: dict[str, Any]) -> Process:
        [port] = free_ports(1)
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": self.deployment.servers,
            "TOPIC_PREFIX": self.deployment.prefix,
            "HTTP_PORT": str(port),
            "STATE_DIR": str(self.deployment.folder / name),
            "SESSION_TIMEOUT_S": str(SESSION_S),
            "HEARTBEAT_INTERVAL_S": "1",
            "VALIDATION_DEADLINE_S": "300",
            **{key.upper(): str(value) for key, value in changes.items()},
        }
        log = self.deployment.folder / f"{name}.log"
        return Process(name, services, port, {**os.environ, **settings}, log)

    async def __aenter__(self) -> Self:
        for process in self.processes:
            process.start()
        await asyncio.gather(*(self.ready(p) for p in self.processes))
        return self

    async def __aexit__(self, *error: object) -> None:
        for process in self.processes:
            process.end(signal.SIGKILL)

    async def ready(self, process: Process) -> None:
        async with asyncio.timeout(90):
            while True:
                try:
                    async with self.deployment.http.get(f"{process.url}/readyz") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)

    @property
    def gates(self) -> list[Process]:
        """Those that take orders."""
        return [p for p in self.processes if "orders" in p.services]


@dataclass
class Load:
    """Clients that post orders at a steady rate and note what was acknowledged."""

    fleet: Fleet
    products: tuple[str, ...]
    rate: float
    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)

    async def run(self, stop: asyncio.Event, rng: random.Random) -> None:
        clients: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            order = {
                "id": new_order_id(),
                "customerId": rng.randrange(1000),
                "product": rng.choice(self.products),
                "quantity": rng.choice((1, 1, 1, 2, -1)),
                "price": rng.choice((1, 5, 900)),
            }
            client = asyncio.create_task(self._post(order, rng.choice(self.fleet.gates)))
            clients.add(client)
            client.add_done_callback(clients.discard)
            await asyncio.sleep(1 / self.rate)
        await asyncio.gather(*clients)

    async def _post(self, order: dict[str, Any], gate: Process) -> None:
        try:
            async with self.fleet.deployment.http.post(
                f"{gate.url}/v1/orders", json=order, timeout=aiohttp.ClientTimeout(30)
            ) as response:
                if response.status in {200, 201}:
                    self.acknowledged[order["id"]] = order
                else:
                    self.refused[str(response.status)] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.refused[type(error).__name__] += 1


class Faults:
    """What happens to workers. Every fault ends with the worker running again."""

    KINDS = ("kill", "pause", "terminate")

    def __init__(self, fleet: Fleet, rng: random.Random) -> None:
        self.fleet = fleet
        self.rng = rng
        self.done: Counter[str] = Counter()

    async def happen(self, count: int, between: tuple[float, float]) -> None:
        running: list[asyncio.Task[None]] = []
        for _ in range(count):
            kind, victim = self.rng.choice(self.KINDS), self.rng.choice(self.fleet.processes)
            running.append(asyncio.create_task(self._fault(kind, victim)))
            await asyncio.sleep(self.rng.uniform(*between))
        await asyncio.gather(*running)

    async def _fault(self, kind: str, victim: Process) -> None:
        self.done[kind] += 1
        if kind == "pause":
            victim.tell(signal.SIGSTOP)
            await asyncio.sleep(self.rng.uniform(SESSION_S + 1, SESSION_S + 4))
            victim.tell(signal.SIGCONT)
            return
        number = signal.SIGKILL if kind == "kill" else signal.SIGTERM
        await asyncio.to_thread(victim.end, number)
        await asyncio.sleep(self.rng.uniform(0, 2))
        if victim.popen is None or victim.popen.poll() is not None:
            victim.start()


async def faults_of(deployment: Deployment, load: Load) -> list[str]:
    """Every promise that does not hold, in words. Waits for orders that are still under way."""
    http = deployment.http
    for id_ in load.acknowledged:
        await _decided(http, load.fleet.gates[0].url, id_)
    found: list[str] = []
    finals: dict[str, list[Any]] = {}
    for order in await deployment.values(ORDERS):
        if order.state is not OrderState.CREATED:
            finals.setdefault(order.id, []).append(order)
    found += [f"{id_}: acknowledged, never decided" for id_ in load.acknowledged if id_ not in finals]
    found += [f"{id_}: decided {len(all_)} times" for id_, all_ in finals.items() if len(all_) != 1]
    rows = await _table(deployment, STOCK)
    wanted: Counter[str] = Counter()
    for all_ in finals.values():
        if all_[0].state is OrderState.VALIDATED:
            wanted[all_[0].product] += all_[0].quantity
    for product, row in rows.items():
        if row.reserved != wanted[product]:
            found.append(f"{product}: {row.reserved} reserved, validated orders hold {wanted[product]}")
        if row.reserved > (row.count or 0):
            found.append(f"{product}: {row.reserved} reserved of {row.count}")
    return found


async def _decided(http: aiohttp.ClientSession, url: str, id_: str) -> None:
    async with asyncio.timeout(120):
        while True:
            try:
                async with http.get(f"{url}/v1/orders/{id_}/validated?timeout=20000") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)


async def _table(deployment: Deployment, table: Any) -> dict[str, Any]:
    """A table as its changelog has it."""
    rows: dict[str, Any] = {}
    for record in await deployment.records(table.changelog):
        key = record.key.decode()
        if record.value is None:
            rows.pop(key, None)
        else:
            rows[key] = table.model.from_json(record.value)
    return rows


__all__ = ["CORE", "RESERVATIONS", "Faults", "Fleet", "Load", "faults_of"]
