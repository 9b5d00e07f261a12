"""Child processes that do not outlive this one: each in a process group of its own, killed if this one is."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_LOG_TAIL_LINES = 15
_PR_SET_PDEATHSIG = 1  # prctl(2)


def spawn(
    command: Sequence[str | Path],
    output: int | IO[Any],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a child in a process group of its own, so that Ctrl-C reaches only this process, which stops the child.

    On Linux the kernel kills the child with SIGKILL when the thread that called this function ends: call it from a
    thread that outlives the child. Its data must survive SIGKILL. On macOS a child survives if this process is killed
    with SIGKILL.

    Arguments:
        command: program and arguments.
        output: file or descriptor for standard output and standard error.
        env: environment; `None`: that of this process.
        cwd: working directory; `None`: that of this process.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=env,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - calls nothing that acquires a lock
    )


def _die_with(parent: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: the child only calls it

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died between the fork and the line above
            os._exit(1)

    return before_exec


def stop(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """Sends SIGTERM, and SIGKILL to the group after `grace_s`."""
    if process.poll() is None:
        process.terminate()
        wait_or_kill(process, grace_s)


def wait_or_kill(process: subprocess.Popen[bytes], grace_s: float) -> bool:
    """Waits for a process that is ending; sends SIGKILL to its group after `grace_s`. Returns whether it had to.

    The exit code does not tell: a Python process that SIGTERM reaches before it handles signals, or after, dies of it.
    """
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        kill(process)
        return True
    return False


def kill(process: subprocess.Popen[bytes]) -> int:
    """Sends SIGKILL to the group. Returns the exit code, negative for a signal."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def log_tail(log: Path) -> str:
    """Returns the last lines of a log, for an error text."""
    lines = log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:] if log.exists() else []
    return "\n".join([f"The end of {log}:", *(f"  {line}" for line in lines or ["(empty)"])])
