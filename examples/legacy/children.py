"""The processes of the demonstration: imports and the frontend worker. All are killed and started again."""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from ecosystem.embedded import processes

MAPPINGS = ("payments", "customers", "stock")


class Children:
    """Three imports that follow their sources, and a worker with the frontend sink.

    Arguments:
        folder: of the mapping files, which gets their logs, too.
        environment: addresses of Kafka and of the databases.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {**os.environ, **environment, "HTTP_PORT": "0", "STATE_DIR": str(folder / "state")}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Starts all of them."""
        for name in MAPPINGS:
            self._start(name, "ecosystem.cli", "import", str(self._folder / f"{name}.toml"), "--follow")
        self._start("frontend", "examples.legacy", "frontend")

    def kill(self) -> None:
        """Sends SIGKILL to all of them, like a crash."""
        for process in self._running.values():
            processes.kill(process)

    def stop(self) -> None:
        """Stops all of them."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            processes.stop(process, 10)

    def failures(self) -> Iterable[str]:
        """Describes those that have ended by themselves."""
        for name, process in self._running.items():
            if process.poll() is not None:
                yield f"{name} ended with code {process.returncode}. {processes.log_tail(self._log(name))}"

    def _start(self, name: str, *arguments: str) -> None:
        with self._log(name).open("ab") as log:
            self._running[name] = processes.spawn([sys.executable, "-m", *arguments], log, self._environment)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"
