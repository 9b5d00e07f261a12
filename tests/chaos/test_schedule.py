"""A seed always gives the same schedule, and every kind of fault is drawn."""

import random

from tests.chaos.faults import KINDS, schedule


def test_the_same_seed_gives_the_same_faults():
    first, again, other = (schedule(random.Random(seed), KINDS, 8, 20) for seed in (7, 7, 8))
    assert first == again != other


def test_every_kind_of_fault_and_every_worker_is_drawn():
    faults = schedule(random.Random(1), KINDS, 8, 300)
    assert {fault.kind for fault in faults} == KINDS
    assert {fault.victim for fault in faults} == set(range(8))
    assert min(fault.after for fault in faults) < 0.1
    assert max(fault.after for fault in faults) > 5
