"""Runs the load generator: the Go program of `bench/generator`, built on demand; without Go `bench/load.py`."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.comparison.building import build_folder, run_build
from bench.comparison.processes import StartError

SOURCE = Path(__file__).parents[1] / "generator"
FALLBACK = Path(__file__).parents[1] / "load.py"
NO_GO = (
    "Go is missing (apt install golang-go): bench/load.py generates the load instead. It uses much more CPU, and has"
    " neither floods, reads, orders in one request nor the interface of Restate."
)
_BUILD_TIMEOUT_S = 300


def go() -> str | None:
    """Returns the command `go`; `None` if there is none."""
    return shutil.which("go") or shutil.which("/usr/local/go/bin/go")


def build() -> Path | None:
    """Builds the generator, once for each version of its sources; `None` where Go is missing. Raises `StartError`."""
    if (command := go()) is None:
        return None
    folder, is_built = build_folder("generator", SOURCE)
    program = folder / "generator"
    if not is_built:
        run_build([command, "build", "-buildvcs=false", "-o", str(program), "."], SOURCE, _BUILD_TIMEOUT_S)
        (folder / "built").touch()
    return program


class Generator:
    """The load generator that there is."""

    def __init__(self) -> None:
        self._program = build()

    @property
    def is_fallback(self) -> bool:
        """Whether Go is missing, so that only open and closed loops of orders can be generated."""
        return self._program is None

    def run(self, api: str, urls: Sequence[str], arguments: Sequence[str], seconds: float) -> dict[str, Any]:
        """Returns what the generator measured. Raises `StartError` if it failed.

        Arguments:
            api: interface of the system, see `System.api`.
            urls: of its servers.
            arguments: load, without URL and duration. Without Go, what only the Go program knows is left out.
            seconds: of the load.
        """
        if self._program:
            command = [str(self._program), "-api", api, "-url", ",".join(urls), *arguments]
        else:
            command = [sys.executable, str(FALLBACK), *_fallback(arguments)]
            command += [word for url in urls for word in ("--url", url)]
        command += ["-seconds" if self._program else "--seconds", f"{seconds:g}"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60 * seconds + 600)
        if done.returncode:
            raise StartError(f"the generator failed: {done.stderr[-1000:]}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result


def _fallback(arguments: Sequence[str]) -> list[str]:
    """Returns the load in the words of `bench/load.py`, as far as it has them."""
    pairs = dict(zip(arguments[::2], arguments[1::2], strict=True))
    return [word for name in ("-clients", "-rate") if name in pairs for word in (f"-{name}", pairs[name])]
