"""Freed memory goes back to the system, also after large blocks were freed."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import psutil
from runtime.worker.allocator import return_freed_memory

if sys.argv[1] == "fixed":
    assert return_freed_memory()
rss = psutil.Process().memory_info
large = bytearray(8 * 1024 * 1024)
del large  # from here on glibc would take blocks of up to 8 MiB from the heap
blocks, between = [], []
for _ in range(100):
    blocks.append(bytearray(1024 * 1024 - 64))
    between.append(bytearray(1024))
full = rss().rss
del blocks
print((full - rss().rss) // (1024 * 1024))
"""


def returned_mib(kind, **env):
    run = [sys.executable, "-c", PROGRAM, kind]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False, env=env or None)
    assert not done.returncode, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of glibc")
def test_large_blocks_go_back_to_the_system_when_they_are_freed():
    assert returned_mib("fixed") >= 90


@pytest.mark.skipif(sys.platform != "linux", reason="limits of glibc")
def test_without_fixed_limits_they_stay_in_the_heap():
    assert returned_mib("dynamic") < 50


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_limits_in_the_environment_count(name, monkeypatch):
    from runtime.worker.allocator import return_freed_memory

    monkeypatch.setenv(name, "2")
    assert not return_freed_memory()
