"""One broker: its files, its process, and whether it serves."""

import shutil
import subprocess
import time
from pathlib import Path

from ecosystem.embedded import processes
from ecosystem.embedded.kafka.config import DATA, environment
from ecosystem.embedded.kafka.errors import KafkaError
from ecosystem.embedded.ports import is_open

_POLL_S = 0.02
_PROPERTIES = "server.properties"


class Node:
    """A broker that keeps everything under `home`: its data, `server.properties` and `kafka.log`."""

    def __init__(self, home: Path, java: list[str], port: int) -> None:
        self.home = home
        self.port = port
        self._java = java
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.home / DATA

    @property
    def log(self) -> Path:
        return self.home / "kafka.log"

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Of a process that has ended, negative for a signal."""
        return self._process.poll() if self._process else None

    def configure(self, properties: str, cluster_id: str) -> None:
        """Writes the configuration, and formats the data directory if it is new. Raises `KafkaError`."""
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / _PROPERTIES).write_text(properties)
        if (self.data / "meta.properties").exists():
            return
        command = [
            *self._java,
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster_id}",
            f"--config={_PROPERTIES}",
        ]
        done = subprocess.run(
            command,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            env=environment(),
            cwd=self.home,
        )
        if done.returncode:
            raise KafkaError(f"Could not format {self.data}:\n{done.stdout.strip()}")

    def launch(self) -> None:
        """Starts the process and returns at once. The log of its predecessor is kept as `kafka.log.1`."""
        if self.log.exists():
            self.log.replace(self.home / "kafka.log.1")
        with self.log.open("wb") as log:
            command = [*self._java, f"-Djava.io.tmpdir={self._emptied_tmp()}", "kafka.Kafka", _PROPERTIES]
            self._process = processes.spawn(command, log, environment(), self.home)

    def _emptied_tmp(self) -> Path:
        """Where codecs lay down their libraries: programs from the system's folder may be barred, and pile up there."""
        tmp = self.home.absolute() / "tmp"
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir()
        return tmp

    def wait_until_open(self, deadline: float) -> None:
        """Returns when the node takes connections, which a broker does once it has joined its cluster.

        Raises `KafkaError`, with the end of the log, when the process ends or `deadline` (`time.monotonic`) passes.
        """
        while not is_open(self.port):
            if not self.running:
                raise KafkaError(f"Kafka ended with code {self.exit_code} while it started. {self.log_tail()}")
            if time.monotonic() > deadline:
                raise KafkaError(f"Kafka did not open port {self.port} in time. {self.log_tail()}")
            time.sleep(_POLL_S)

    def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL."""
        if self._process:
            processes.stop(self._process, grace_s)

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        if self._process and self.running:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL, as a crash would end it."""
        if self._process:
            processes.kill(self._process)

    def log_tail(self) -> str:
        """The last lines of the log, for an error message."""
        return processes.log_tail(self.log)
