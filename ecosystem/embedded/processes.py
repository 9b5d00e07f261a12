"""Child processes that never outlive us: own process group, stopped in two steps, killed if we are killed."""

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
    """Starts a child in a process group of its own, so that Ctrl-C reaches only us and we stop it in order.

    On Linux the kernel kills it with SIGKILL when we die without having stopped it; what it keeps must survive that.
    Mind that the kernel looks at the thread that called this: call it from one that lives as long as the child is to.
    Elsewhere (macOS) a child stays behind if we are killed with SIGKILL.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=env,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - calls nothing that takes a lock
    )


def _die_with(parent: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: only the bare call is made in the child

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # died between the fork and the line above
            os._exit(1)

    return before_exec


def stop(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """SIGTERM, and after `grace_s` seconds SIGKILL to the whole group. Returns the exit code, negative for a signal."""
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(grace_s)
        except subprocess.TimeoutExpired:
            return kill(process)
    return process.returncode


def kill(process: subprocess.Popen[bytes]) -> int:
    """SIGKILL to the whole group, at once. Returns the exit code, negative for a signal."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def log_tail(log: Path) -> str:
    """The last lines of a child's log, for an error message."""
    lines = log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:] if log.exists() else []
    return "\n".join([f"The end of {log}:", *(f"  {line}" for line in lines or ["(empty)"])])
