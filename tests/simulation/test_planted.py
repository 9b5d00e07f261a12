"""The simulation finds each planted bug within a few hundred seeds."""

import pytest

from tests.simulation import cancelling_bugs, replaying_bugs  # noqa: F401  these register their bugs
from tests.simulation.bugs import PLANTED
from tests.simulation.run import explain
from tests.simulation.schedule import draw
from tests.simulation.shrink import outcome, shrink

MOST_SEEDS = 400


def first_failure(bug):
    """The first seed that fails. The bug must be planted."""
    for seed in range(bug.near, bug.near + MOST_SEEDS):
        if outcome(draw(seed, exactly_once=bug.exactly_once)):
            return seed
    return None


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name):
    bug = PLANTED[name]
    with bug.plant():
        seed = first_failure(bug)

    assert seed is not None, f"{name} is not found in {MOST_SEEDS} seeds"
    assert not outcome(draw(seed, exactly_once=bug.exactly_once)), "the seed fails without the bug, too"


def test_a_failing_seed_shrinks_to_a_short_trace_that_replays():
    bug = PLANTED["release_twice"]
    with bug.plant():
        seed = first_failure(bug)
        full = draw(seed, exactly_once=True)
        short = shrink(full)
        found = outcome(short)
        text = explain(seed, exactly_once=True, bug="release_twice")

    assert found, "what is left still fails"
    assert len(short.events) < len(full.events) / 2
    assert all(f"violation: {sentence}" in text for sentence in found)
    assert f"--replay {seed} --guarantee exactly_once --plant release_twice" in text
    assert "appends" in text, "the trace itself"
