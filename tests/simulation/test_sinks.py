"""Sinks store every record of the core exactly once, in every simulated world."""

from collections import Counter

import pytest

from tests.simulation.schedule import draw
from tests.simulation.sinks import FAULTS, SinkWorld, outcome

SEEDS = 40
MOST_SEEDS = 100
"""Seeds within which a planted bug must be found."""


def played(seed, **bugs):
    return SinkWorld(draw(seed, exactly_once=seed % 4 != 3), **bugs).run()


def test_no_world_stores_a_record_twice_or_not_at_all():
    faults, rows = Counter(), 0
    for seed in range(SEEDS):
        world = played(seed)
        assert outcome(world) == [], f"seed {seed}"
        faults += world.sink_faults
        rows += len(world.database.rows)
    assert rows > 10 * SEEDS
    assert all(faults[what] > SEEDS / 4 for what in FAULTS), faults


@pytest.mark.parametrize("bug", [{"compares": False}, {"together": False}], ids=["no compare-and-set", "apart"])
def test_a_planted_bug_is_found(bug):
    assert any(outcome(played(seed, **bug)) for seed in range(MOST_SEEDS))
