"""Runs `orders` commands as child processes, and prints their logs, each line with the child's name."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from ecosystem.embedded import processes

GRACE_S = 15.0
"""Seconds from SIGTERM to SIGKILL: a worker finishes its batch, leaves its group and closes RocksDB."""
_DRAIN_S = 10.0
"""Seconds to wait for the last lines of a stopped child."""
_COLOURS = ("cyan", "green", "yellow", "blue", "magenta", "bright_cyan", "bright_green", "bright_yellow")


class Children:
    """The child processes of one `orders up`.

    Arguments:
        console: where logs are printed.
        width: characters of the column with the child's name.
    """

    def __init__(self, console: Console, width: int) -> None:
        self._console = console
        self._width = width
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._readers: list[threading.Thread] = []

    def start(self, name: str, arguments: Sequence[str], env: Mapping[str, str]) -> int:
        """Starts `orders <arguments>` and prints its output. Returns the process id."""
        command = [sys.executable, "-m", "ecosystem.cli", *arguments]
        process = processes.spawn(command, subprocess.PIPE, {**os.environ, "PYTHONUNBUFFERED": "1", **env})
        colour = _COLOURS[len(self._processes) % len(_COLOURS)]
        self._processes[name] = process
        reader = threading.Thread(target=self._print_output, args=(name, colour, process), daemon=True)
        reader.start()
        self._readers.append(reader)
        return process.pid

    def failure(self) -> str | None:
        """Names a child that ended by itself; `None` while all run."""
        for name, process in self._processes.items():
            if (code := process.poll()) is not None:
                return f"{name} ended unexpectedly, with code {code}"
        return None

    def stop(self, *names: str) -> None:
        """Stops the named children, or all: SIGTERM to each, SIGKILL after `GRACE_S`. Ignores unknown names."""
        chosen = {n: self._processes.pop(n) for n in list(self._processes) if not names or n in names}
        ending = {name: process for name, process in chosen.items() if process.poll() is None}
        for process in ending.values():  # once: a second SIGTERM would interrupt a process that is ending
            process.terminate()
        deadline = time.monotonic() + GRACE_S
        for name, process in ending.items():
            if processes.wait_or_kill(process, max(0.0, deadline - time.monotonic())):
                self._console.print(f"{name} did not stop within {GRACE_S:.0f} s and was killed", style="red")
        if not self._processes:
            for reader in self._readers:
                reader.join(_DRAIN_S)

    def _print_output(self, name: str, colour: str, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for raw in process.stdout:
            prefix = Text(f"{name:<{self._width}} | ", colour)
            line = Text.from_ansi(raw.decode(errors="replace").rstrip("\n"))
            self._console.print(prefix.append_text(line), soft_wrap=True)
