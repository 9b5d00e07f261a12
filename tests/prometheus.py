"""Prometheus and its tool `promtool`, from the package `prometheus` of the distribution."""

import shutil
import subprocess

import pytest

MISSING = "needs Prometheus: apt-get install prometheus"


def promtool(*arguments, stdin=b"", cwd=None):
    """Runs `promtool`. Skips the test where it is not installed."""
    if shutil.which("promtool") is None:
        pytest.skip(MISSING)
    run = subprocess.run(["promtool", *map(str, arguments)], input=stdin, capture_output=True, cwd=cwd, timeout=120)
    output = (run.stdout + run.stderr).decode()
    return subprocess.CompletedProcess(run.args, run.returncode, output)
