"""A build of the bench that fails says which command, where, and what it printed."""

import sys

import pytest

from bench.comparison.building import run_build
from bench.comparison.processes import StartError


@pytest.mark.parametrize(
    ("code", "timeout_s", "said"),
    [
        ("print('why'); raise SystemExit(3)", 60, r"failed in (?s:.*)why"),
        ("import time; time.sleep(60)", 0.1, r"took more than 0\.1 s in"),
    ],
)
def test_a_build_that_fails_says_why(tmp_path, code, timeout_s, said):
    with pytest.raises(StartError, match=said):
        run_build([sys.executable, "-c", code], tmp_path, timeout_s)
    run_build([sys.executable, "-c", ""], tmp_path, 60)
