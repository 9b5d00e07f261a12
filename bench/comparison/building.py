"""Builds for the bench, in folders of the user's cache: one for each version of the sources."""

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.comparison.processes import StartError
from ecosystem.embedded.kafka.install import cache_dir

_FALLBACK = Path(".data") / "cache"


def build_folder(name: str, *sources: Path) -> tuple[Path, bool]:
    """Returns a folder for the results of a build, and whether a build that ended well has left its file `built` there.

    Arguments:
        name: of the build.
        sources: files and folders whose contents choose the folder.
    """
    digest = hashlib.sha256()
    for source in sources:
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file():
                digest.update(str(path.relative_to(source)).encode() + b"\0" + path.read_bytes() + b"\0")
    folder = cache_dir(_FALLBACK) / "bench" / f"{name}-{digest.hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder, (folder / "built").exists()


def run_build(command: Sequence[str], folder: Path, timeout_s: float) -> None:
    """Runs a command of a build in a folder. Raises `StartError` with its output if it fails or takes too long."""
    try:
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise StartError(f"`{' '.join(command)}` took more than {timeout_s:g} s in {folder}") from None
    if done.returncode:
        raise StartError(f"`{' '.join(command)}` failed in {folder}:\n{(done.stdout + done.stderr)[-3000:]}")
