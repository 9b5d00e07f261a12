"""Makes a failing schedule small: what it can do without is taken out, and the run still fails in the same way."""

from dataclasses import replace

from tests.simulation.invariants import violations
from tests.simulation.world import World

SEEDS = 3
"""A shorter schedule meets another weather: so many are tried before an event counts as needed."""


def outcome(schedule, trace=None):
    """The violations of a run. A run that ends with an exception violates something, too."""
    try:
        return violations(World(schedule, trace).run())
    except Exception as error:  # whatever it is: the seed is to be told
        return [f"{type(error).__name__}: {error}"]


def shrink(schedule):
    """The smallest schedule found that fails as this one does, with no regard to how long that takes."""
    kind = _kind(outcome(schedule))
    size = max(1, len(schedule.events) // 2)
    while size:
        start = 0
        while start < len(schedule.events):
            smaller = _failing(schedule.without(start, size), kind)
            if smaller is None:
                start += size
            else:
                schedule = smaller
        size //= 2
    return schedule


def _failing(schedule, kind):
    for seed in range(SEEDS):
        tried = replace(schedule, seed=schedule.seed + seed * 1_000_000)
        if kind <= _kind(outcome(tried)):
            return tried
    return None


def _kind(sentences):
    """What the first violation is about, without the numbers."""
    return {"".join(c for c in sentence if not c.isdigit())[:24] for sentence in sentences[:1]}
