"""Workers as children: their logs under each other, each line with its worker's name, and a common end."""

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
_LAST_WORDS_S = 10.0
_COLOURS = ("cyan", "green", "yellow", "blue", "magenta", "bright_cyan", "bright_green", "bright_yellow")


class Children:
    """The `orders` processes of one `orders up`."""

    def __init__(self, console: Console, width: int) -> None:
        self._console = console
        self._width = width
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._readers: list[threading.Thread] = []

    def start(self, name: str, arguments: Sequence[str], env: Mapping[str, str]) -> int:
        """Starts `orders <arguments>` and shows what it says. Returns its process id."""
        command = [sys.executable, "-m", "ecosystem.cli", *arguments]
        process = processes.spawn(command, subprocess.PIPE, {**os.environ, "PYTHONUNBUFFERED": "1", **env})
        colour = _COLOURS[len(self._processes) % len(_COLOURS)]
        self._processes[name] = process
        reader = threading.Thread(target=self._show, args=(name, colour, process), daemon=True)
        reader.start()
        self._readers.append(reader)
        return process.pid

    def failure(self) -> str | None:
        """Says which process ended by itself; `None` while all run."""
        for name, process in self._processes.items():
            if (code := process.poll()) is not None:
                return f"{name} ended unexpectedly, with code {code}"
        return None

    def stop(self, *names: str) -> None:
        """Stops these as far as they were started, or all: SIGTERM to each, SIGKILL after 15 seconds."""
        chosen = {n: self._processes.pop(n) for n in list(self._processes) if not names or n in names}
        leaving = {name: process for name, process in chosen.items() if process.poll() is None}
        for process in leaving.values():
            process.terminate()
        deadline = time.monotonic() + GRACE_S
        for name, process in leaving.items():
            if processes.stop(process, max(0.0, deadline - time.monotonic())) < 0:
                self._console.print(f"{name} had to be killed", style="red")
        if not self._processes:
            for reader in self._readers:  # their last words
                reader.join(_LAST_WORDS_S)

    def _show(self, name: str, colour: str, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for raw in process.stdout:
            prefix = Text(f"{name:<{self._width}} | ", colour)
            said = Text.from_ansi(raw.decode(errors="replace").rstrip("\n"))
            self._console.print(prefix.append_text(said), soft_wrap=True)
