"""The core keeps its guarantees in every simulated world. `make simulate SEEDS=10000` runs more worlds."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.run import explain, run_many
from tests.simulation.schedule import draw
from tests.simulation.world import World

SEEDS = {"exactly_once": 600, "at_least_once": 400}
"""Worlds of each guarantee: about a minute on two cores."""


@pytest.mark.parametrize("guarantee", SEEDS)
def test_no_world_violates_an_invariant(guarantee):
    exactly_once = guarantee == "exactly_once"
    failed, counts = run_many(0, SEEDS[guarantee], exactly_once=exactly_once)

    assert not failed, explain(min(failed), exactly_once=exactly_once)
    assert counts["acknowledged"] > 5 * SEEDS[guarantee]
    assert counts["rebalances"] > 2 * SEEDS[guarantee]
    assert counts["attempts of failed orders"] > SEEDS[guarantee] / 2
    assert counts["replayed records"] > SEEDS[guarantee] / 2
    for fault in (
        "crash",
        "wipe",
        "pause",
        "stop",
        "error",
        "cut",
        "storm",
        "delay",
        "slow markers",
        "compact",
        "expire",
    ):
        assert counts[f"fault: {fault}"] > SEEDS[guarantee] / 50, f"too few of {fault}"


def fingerprint(seeds):
    """A hash over all events in these worlds."""
    digest = hashlib.sha256()
    for seed in seeds:
        for exactly_once in (True, False):
            World(draw(seed, exactly_once=exactly_once), lambda *event: digest.update(repr(event).encode())).run()
    return digest.hexdigest()


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_a_seed_always_gives_the_same_run(hash_seed):
    seeds = range(4)
    program = (
        "import logging; logging.disable(); from tests.simulation.test_seeds import fingerprint; "
        f"print(fingerprint({seeds}))"
    )
    other = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )

    assert other.stdout.strip() == fingerprint(seeds)
