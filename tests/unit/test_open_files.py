"""A worker has as many files open as the system allows, not as few as it starts an ordinary user's programs with."""

import resource
import subprocess
import sys

import pytest

_ASK = """
import logging, resource
from runtime.worker import open_files
logging.basicConfig()
open_files.raise_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard", "warned"), [(1024, 8192, False), (8192, 8192, False), (256, 1024, True)])
def test_the_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int, warned: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ASK],
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
    )
    assert done.stdout.split() == [str(hard), str(hard)]
    assert ("few open files allowed" in done.stderr) is warned


def test_a_worker_raises_it_before_it_opens_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    from runtime.common.settings import Settings
    from runtime.worker import process

    def raised() -> None:
        raise InterruptedError

    monkeypatch.setattr("runtime.worker.open_files.raise_limit", raised)
    monkeypatch.setattr(process, "configure", lambda settings: None)
    with pytest.raises(InterruptedError):
        process.run((), Settings())
