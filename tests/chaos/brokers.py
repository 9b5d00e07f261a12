"""A cluster with a proxy for each pair of worker and broker, so that the network of one worker can fail alone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ecosystem.embedded.kafka import Cluster
from ecosystem.embedded.ports import free_ports
from tests.chaos.toxiproxy import Toxiproxy, installed
from tests.go_modules import NotInstalled


@dataclass
class Lane:
    """The proxies of one worker, one for each node."""

    servers: str
    proxies: tuple[str, ...]
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held during a fault."""


class Brokers:
    """A cluster and its proxies, if toxiproxy is available. Kills one broker at a time."""

    def __init__(self, cluster: Cluster, toxiproxy: Toxiproxy | None, lanes: list[Lane]) -> None:
        self.cluster = cluster
        self.toxiproxy = toxiproxy
        self._lanes = lanes
        self._turn = asyncio.Lock()

    @property
    def servers(self) -> str:
        return self.cluster.bootstrap_servers

    def lane(self, number: int) -> Lane | None:
        """The lane of a worker; `None` without toxiproxy."""
        return self._lanes[number % len(self._lanes)] if self._lanes else None

    async def lose(self, node: int, seconds: float) -> None:
        """Kills a broker with SIGKILL and restarts it after a number of seconds."""
        async with self._turn:
            await asyncio.to_thread(self.cluster.kill, node)
            try:
                await asyncio.sleep(seconds)
            finally:
                await asyncio.to_thread(self.cluster.restart, node)

    async def heal(self) -> None:
        """Heals all proxies."""
        if self.toxiproxy:
            for lane in self._lanes:
                await self.toxiproxy.heal(lane.proxies)


@asynccontextmanager
async def brokers(
    home: Path, *, nodes: int = 3, lanes: int = 0, properties: dict[str, str] | None = None
) -> AsyncIterator[Brokers]:
    """Starts a cluster, with a lane for each worker if toxiproxy is available."""
    async with contextlib.AsyncExitStack() as stack:
        home.mkdir(parents=True, exist_ok=True)
        toxiproxy = None
        if lanes:
            with contextlib.suppress(NotInstalled):
                binary = await asyncio.to_thread(installed)
                toxiproxy = await stack.enter_async_context(Toxiproxy(binary, home / "toxiproxy.log"))
        ports = _ports(lanes if toxiproxy else 0, nodes)
        ways = []
        for name, advertised in ports.items():
            for node, port in advertised.items():
                assert toxiproxy is not None
                await toxiproxy.add(f"{name}-{node}", port)  # before the brokers choose their ports
            servers = ",".join(f"127.0.0.1:{port}" for port in advertised.values())
            ways.append(Lane(servers, tuple(f"{name}-{node}" for node in advertised)))
        cluster = stack.enter_context(Cluster(home, nodes=nodes, listeners=ports, properties=properties))
        for name, advertised in ports.items():
            for node in advertised:
                assert toxiproxy is not None
                await toxiproxy.lead(f"{name}-{node}", cluster.listener_port(name, node))
        yield Brokers(cluster, toxiproxy, ways)


def _ports(lanes: int, nodes: int) -> dict[str, dict[int, int]]:
    free = iter(free_ports(lanes * nodes))
    return {f"LANE{n}": {node: next(free) for node in range(1, nodes + 1)} for n in range(lanes)}
