"""CPU time and memory of the processes of a system, and how a process is started and stopped."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from ecosystem.embedded import processes

GRACE_S = 15.0
"""Seconds from SIGTERM to SIGKILL."""
MIB = 1024 * 1024


class StartError(Exception):
    """A system could not be built or started. The text is meant for the user."""


class Processes:
    """Running processes by the role that a table names: `worker`, `JVM`, `broker`.

    Arguments:
        folder: for a log of each process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._running: list[tuple[str, subprocess.Popen[bytes], Path]] = []
        self._watched: list[tuple[str, int]] = []

    def start(
        self, role: str, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path | None = None
    ) -> "subprocess.Popen[bytes]":
        path = self._folder / f"{role}-{len(self._running)}.log"
        with path.open("wb") as log:
            process = processes.spawn(command, log, env, cwd)
        self._running.append((role, process, path))
        return process

    def watch(self, role: str, pid: int) -> None:
        """Counts the CPU time of a process that somebody else started."""
        self._watched.append((role, pid))

    def require_running(self) -> None:
        """Raises `StartError`, with the end of its log, if a process has ended."""
        for role, process, log in self._running:
            if (code := process.poll()) is not None:
                raise StartError(f"{role} ended with code {code}. {processes.log_tail(log)}")

    def wait_until(self, holds: Callable[[], bool], what: str, timeout_s: float = 300.0) -> None:
        """Raises `StartError` if a process ends, or the time is over, before the condition holds."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            self.require_running()
            if time.monotonic() > deadline:
                raise StartError(f"{what} took more than {timeout_s:.0f} s. {processes.log_tail(self._running[-1][2])}")
            time.sleep(0.05)

    def cpu_seconds(self) -> dict[str, float]:
        """CPU seconds so far, by role, child processes included."""
        return self._sums(lambda process: sum(process.cpu_times()[:2]))

    def rss_mib(self) -> dict[str, float]:
        """Resident memory in MiB, by role, child processes included."""
        return self._sums(lambda process: process.memory_info().rss / MIB)

    def stop(self) -> None:
        for _, process, _ in self._running:
            if process.poll() is None:
                process.terminate()
        for _, process, _ in self._running:
            processes.wait_or_kill(process, GRACE_S)
        self._running.clear()

    def _sums(self, of: Callable[[psutil.Process], float]) -> dict[str, float]:
        sums: dict[str, float] = {}
        for role, pid in [*((role, process.pid) for role, process, _ in self._running), *self._watched]:
            try:
                parent = psutil.Process(pid)
                tree = [parent, *parent.children(recursive=True)]
                sums[role] = sums.get(role, 0.0) + sum(of(process) for process in tree)
            except psutil.NoSuchProcess:
                continue
        return sums
