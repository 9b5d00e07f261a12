"""One broker: its files, its process and its state."""

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
    """A broker with all its files in `home`: data, `server.properties` and `kafka.log`."""

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
        """Process id; `None` if it does not run."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the ended process, negative for a signal."""
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
        """Starts the process without waiting. Keeps the log of its predecessor as `kafka.log.1`."""
        if self.log.exists():
            self.log.replace(self.home / "kafka.log.1")
        with self.log.open("wb") as log:
            command = [*self._java, f"-Djava.io.tmpdir={self._empty_temp_folder()}", "kafka.Kafka", _PROPERTIES]
            self._process = processes.spawn(command, log, environment(), self.home)

    def _empty_temp_folder(self) -> Path:
        """Returns a folder where codecs put their libraries: /tmp may forbid execution, and would fill up."""
        tmp = self.home.absolute() / "tmp"
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir()
        return tmp

    def wait_until_open(self, deadline: float) -> None:
        """Waits until the node accepts connections, which it does once it has joined its cluster.

        Raises `KafkaError`, with the end of the log, if the process ends or `deadline` (`time.monotonic`) passes.
        """
        while not is_open(self.port):
            if not self.running:
                raise KafkaError(f"Kafka ended with code {self.exit_code} while starting. {self.log_tail()}")
            if time.monotonic() > deadline:
                raise KafkaError(f"Kafka did not open port {self.port} in time. {self.log_tail()}")
            time.sleep(_POLL_S)

    def terminate(self) -> None:
        """Sends SIGTERM, without waiting."""
        if self._process and self.running:
            self._process.terminate()

    def wait_or_kill(self, grace_s: float) -> None:
        """Waits until it has ended; sends SIGKILL after `grace_s` seconds."""
        if self._process:
            processes.wait_or_kill(self._process, grace_s)

    def kill(self) -> None:
        """Sends SIGKILL, like a crash."""
        if self._process:
            processes.kill(self._process)

    def log_tail(self) -> str:
        """Returns the last lines of the log, for an error text."""
        return processes.log_tail(self.log)
