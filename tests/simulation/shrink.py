"""Shrinks a failing schedule: removes events as long as the run fails in the same way."""

from dataclasses import replace

from tests.simulation.invariants import violations
from tests.simulation.world import World

SEEDS = 3
"""Seeds tried for a shorter schedule before an event counts as needed: removing an event changes all later delays."""


def outcome(schedule, trace=None):
    """The violations of a run. An exception counts as one."""
    try:
        return violations(World(schedule, trace).run())
    except Exception as error:  # any exception is reported with its seed
        return [f"{type(error).__name__}: {error}"]


def shrink(schedule):
    """The smallest schedule found that fails in the same way. May take minutes."""
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
    """The kind of the first violation: its text without numbers."""
    return {"".join(c for c in sentence if not c.isdigit())[:24] for sentence in sentences[:1]}
