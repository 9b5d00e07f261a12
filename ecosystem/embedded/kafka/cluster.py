"""A Kafka cluster of one or three nodes on this machine, with persistent data."""

import asyncio
import base64
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console

from ecosystem.embedded.kafka.config import Listener, NodePorts, java, server_properties
from ecosystem.embedded.kafka.errors import KafkaError
from ecosystem.embedded.kafka.install import ensure_jars
from ecosystem.embedded.kafka.node import Node
from ecosystem.embedded.locks import LockHeld, exclusive_lock
from ecosystem.embedded.ports import reserved_ports

_START_TIMEOUT_S = 180.0
_GRACE_S = 10.0


class Cluster:
    """Apache Kafka on the loopback interface, in processes that do not outlive this one.

    Arguments:
        home: folder of data, configuration and logs. A later cluster on it has the same data, whatever its ports.
        nodes: 1, or 3 (replication factor 3, `min.insync.replicas` 2).
        port: port of the first node, or the next free one; `None`: any free ports.
        heap_mb: heap of each node in MiB; a process uses up to 200 MiB more.
        properties: additions to server.properties.
        jars: class path of another version of Kafka; default: the pinned one, fetched if need be.
        listeners: further listeners, for example for proxies: by name (capital letters) and node, the advertised port,
            or 0 for the port where the node itself listens, which `listener_port` returns.
        console: for progress; by default standard error.
        jvm: further options of the JVM: by default it starts quickly and uses little memory, at the cost of speed.

    All methods block, and raise `KafkaError`. Call them from a thread that outlives the cluster (`processes.spawn`).
    Nodes are numbered from 1.
    """

    def __init__(
        self,
        home: Path,
        *,
        nodes: int = 1,
        port: int | None = None,
        heap_mb: int = 384,
        properties: Mapping[str, str] | None = None,
        jars: Sequence[Path] | None = None,
        listeners: Mapping[str, Mapping[int, int]] | None = None,
        console: Console | None = None,
        jvm: Sequence[str] = (),
    ) -> None:
        if nodes not in {1, 3}:
            raise ValueError("a cluster has 1 or 3 nodes")
        self.home = home
        self.nodes: dict[int, Node] = {}
        self._count = nodes
        self._port = port
        self._heap_mb = heap_mb
        self._properties = dict(properties or {})
        self._jars = jars
        self._listeners = dict(listeners or {})
        self._console = console or Console(stderr=True)
        self._jvm = jvm
        self._ports: dict[int, NodePorts] = {}
        self._resources = ExitStack()

    @property
    def bootstrap_servers(self) -> str:
        """host:port of every node, comma separated."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes.values())

    def listener_port(self, listener: str, node: int) -> int:
        """Returns the port where a node listens for a further listener."""
        return self._ports[node].others[listener].port

    def start(self) -> Self:
        """Starts the cluster. Returns once all nodes serve."""
        jars = self._jars or ensure_jars(self._console, self.home.parent / "cache")
        try:
            self._resources.enter_context(exclusive_lock(self.home / "lock"))
        except LockHeld as held:
            raise KafkaError(f"Another Kafka runs on {self.home} (started by process {held.holder}).") from None
        try:
            self._configure(java(jars, self._heap_mb, self._jvm))
            for node in self.nodes.values():
                node.launch()
            self._wait_until_serving(time.monotonic() + _START_TIMEOUT_S)
        except BaseException:
            self._abort()
            raise
        return self

    def stop(self) -> None:
        """Stops all nodes with SIGTERM; kills them after ten seconds."""
        for node in self.nodes.values():  # all at once: a node without a quorum of controllers cannot shut down cleanly
            node.terminate()
        deadline = time.monotonic() + _GRACE_S
        for node in self.nodes.values():
            node.wait_or_kill(max(0.0, deadline - time.monotonic()))
        self._resources.close()

    def kill(self, node: int) -> None:
        """Sends SIGKILL to one node."""
        self.nodes[node].kill()

    def restart(self, node: int) -> None:
        """Starts an ended node on its data and ports. Returns once it serves."""
        self.nodes[node].launch()
        self._wait_until_serving(time.monotonic() + _START_TIMEOUT_S)

    def pid(self, node: int) -> int:
        """Returns the process id of a running node, for tests that pause it."""
        if (pid := self.nodes[node].pid) is None:
            raise KafkaError(f"node {node} is not running")
        return pid

    def failure(self) -> str | None:
        """Describes a node that ended by itself, with the end of its log; `None` while all run."""
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
        free = iter(self._resources.enter_context(reserved_ports(count, self._port)))
        brokers, controllers = ([next(free) for _ in range(self._count)] for _ in range(2))
        ports = self._ports = {
            n: NodePorts(
                broker,
                controller,
                {name: _listener(next(free), advertised[n]) for name, advertised in self._listeners.items()},
            )
            for n, (broker, controller) in enumerate(zip(brokers, controllers, strict=True), start=1)
        }
        cluster_id = self._cluster_id()
        self.nodes = {n: Node(self.home / str(n), java_command, p.broker) for n, p in ports.items()}
        for n, node in self.nodes.items():
            node.configure(server_properties(n, ports, self._properties), cluster_id)

    def _cluster_id(self) -> str:
        """Returns the id in the data, or a new one: a node refuses to start with another id than its data has."""
        path = self.home / "cluster-id"
        if not path.exists():
            path.write_text(base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("="))
        return path.read_text()

    def _wait_until_serving(self, deadline: float) -> None:
        running = [node for node in self.nodes.values() if node.running]
        for node in running:
            node.wait_until_open(deadline)
        while _count_brokers(self.bootstrap_servers) < len(running):
            if time.monotonic() > deadline:
                raise KafkaError(f"The Kafka nodes did not form a cluster in time. {running[-1].log_tail()}")
            time.sleep(0.1)

    def _abort(self) -> None:
        for node in self.nodes.values():
            node.kill()
        self._resources.close()


def _listener(port: int, advertised: int) -> Listener:
    return Listener(port, advertised or port)


def _count_brokers(servers: str) -> int:
    """Runs `_brokers` in a thread: in tests this one has a running event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(_brokers(servers))).result()


async def _brokers(servers: str) -> int:
    """Returns the number of brokers in the cluster's metadata; 0 if no broker answers."""
    from aiokafka.errors import KafkaError as ClientError

    from runtime.kafka.clients import metadata_client

    client = metadata_client(servers)
    try:
        await client.bootstrap()
        return len(client.cluster.brokers())
    except ClientError:
        return 0
    finally:
        await client.close()
