"""A Kafka of one or three nodes on this machine, on data that stays until it is thrown away."""

import asyncio
import base64
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console

from ecosystem.embedded.kafka.config import Listener, Ports, java, server_properties
from ecosystem.embedded.kafka.errors import KafkaError
from ecosystem.embedded.kafka.install import ensure_jars
from ecosystem.embedded.kafka.node import Node
from ecosystem.embedded.locks import Held, exclusive
from ecosystem.embedded.ports import claimed

_START_S = 180.0
_GRACE_S = 10.0


class Cluster:
    """Apache Kafka on the loopback interface, in processes of its own that do not outlive this one.

    Arguments:
        home: where data, configuration and logs are kept. A later cluster on the same folder finds the data again,
            whatever its ports.
        nodes: 1, or 3 (three copies of everything, two of which must have a message before it is acknowledged).
        port: of the first node, or the next free one; `None` for any that are free.
        heap_mb: heap of each node, MiB; a process takes up to 200 MiB more.
        properties: additions to server.properties.
        listeners: further listeners, say for proxies: by name (capital letters), the port at which each node is
            advertised there. Where it listens itself is told by `listening`.

    All methods block, and raise `KafkaError` with a text for people. Call them from a thread that lives on (see
    `processes.spawn`). Nodes are numbered from 1.
    """

    def __init__(
        self,
        home: Path,
        *,
        nodes: int = 1,
        port: int | None = None,
        heap_mb: int = 384,
        properties: Mapping[str, str] | None = None,
        listeners: Mapping[str, Mapping[int, int]] | None = None,
        console: Console | None = None,
    ) -> None:
        if nodes not in {1, 3}:
            raise ValueError("a cluster has 1 or 3 nodes")
        self.home = home
        self.nodes: dict[int, Node] = {}
        self._count = nodes
        self._port = port
        self._heap_mb = heap_mb
        self._properties = dict(properties or {})
        self._listeners = dict(listeners or {})
        self._console = console or Console(stderr=True)
        self._ports: dict[int, Ports] = {}
        self._held = ExitStack()

    @property
    def bootstrap_servers(self) -> str:
        """Every node's host:port, comma separated."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes.values())

    def listening(self, listener: str, node: int) -> int:
        """The port behind a further listener of a node."""
        return self._ports[node].others[listener].port

    def start(self) -> Self:
        """Returns once all nodes serve."""
        jars = ensure_jars(self._console, self.home.parent / "cache")
        try:
            self._held.enter_context(exclusive(self.home / "lock"))
        except Held as held:
            raise KafkaError(f"Another Kafka runs on {self.home} (started by process {held.holder}).") from None
        try:
            self._configure(java(jars, self._heap_mb))
            for node in self.nodes.values():
                node.launch()
            self._wait_until_serving(time.monotonic() + _START_S)
        except BaseException:
            self._end()
            raise
        return self

    def stop(self) -> None:
        """Stops all nodes: SIGTERM, and what has not gone after ten seconds is killed."""
        for node in self.nodes.values():  # all at once: a controller that is alone cannot say goodbye
            node.terminate()
        deadline = time.monotonic() + _GRACE_S
        for node in self.nodes.values():
            node.stop(max(0.0, deadline - time.monotonic()))
        self._held.close()

    def kill(self, node: int) -> None:
        """SIGKILL to one node."""
        self.nodes[node].kill()

    def restart(self, node: int) -> None:
        """Starts a node that was killed, or ended itself, on its data and ports. Returns once it serves."""
        self.nodes[node].launch()
        self._wait_until_serving(time.monotonic() + _START_S)

    def pid(self, node: int) -> int:
        """Process id of a running node, say to pause it."""
        if (pid := self.nodes[node].pid) is None:
            raise KafkaError(f"node {node} is not running")
        return pid

    def failure(self) -> str | None:
        """What to say if a node ended by itself, with the end of its log; `None` while all run."""
        for number, node in self.nodes.items():
            if not node.running:
                return f"Kafka (node {number}) ended with code {node.exit_code}. {node.log_tail()}"
        return None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _configure(self, java_command: list[str]) -> None:
        count = (2 + len(self._listeners)) * self._count
        free = iter(self._held.enter_context(claimed(count, self._port)))
        brokers, controllers = ([next(free) for _ in range(self._count)] for _ in range(2))
        ports = self._ports = {
            n: Ports(
                broker,
                controller,
                {name: Listener(next(free), advertised[n]) for name, advertised in self._listeners.items()},
            )
            for n, (broker, controller) in enumerate(zip(brokers, controllers, strict=True), start=1)
        }
        cluster_id = self._cluster_id()
        self.nodes = {n: Node(self.home / str(n), java_command, p.broker) for n, p in ports.items()}
        for n, node in self.nodes.items():
            node.configure(server_properties(n, ports, self._properties), cluster_id)

    def _cluster_id(self) -> str:
        """Of the data if there is any: a node refuses to start under another."""
        path = self.home / "cluster-id"
        if not path.exists():
            path.write_text(base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("="))
        return path.read_text()

    def _wait_until_serving(self, deadline: float) -> None:
        running = [node for node in self.nodes.values() if node.running]
        for node in running:
            node.wait_until_open(deadline)
        while _in_own_loop(self.bootstrap_servers) < len(running):
            if time.monotonic() > deadline:
                raise KafkaError(f"The nodes of Kafka did not find each other in time. {running[-1].log_tail()}")
            time.sleep(0.1)

    def _end(self) -> None:
        for node in self.nodes.values():
            node.kill()
        self._held.close()


def _in_own_loop(servers: str) -> int:
    """Runs `_brokers` whether or not an event loop runs in this thread (in tests one does)."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(_brokers(servers))).result()


async def _brokers(servers: str) -> int:
    """How many brokers the cluster's metadata name; 0 if nobody answers."""
    from aiokafka.client import AIOKafkaClient
    from aiokafka.errors import KafkaError as ClientError

    client = AIOKafkaClient(bootstrap_servers=servers)
    try:
        await client.bootstrap()
        return len(client.cluster.brokers())
    except ClientError:
        return 0
    finally:
        await client.close()
