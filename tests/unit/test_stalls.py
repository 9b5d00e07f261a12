"""What counts as a stall, and what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.health.stalls import TOLERANCE, Sample, StallDetector
from runtime.model.records import TopicPartition

LIMIT, TICK = 60.0, 5.0
A, B = TopicPartition("orders", 0), TopicPartition("orders", 1)


def sample(iterations, **changes):
    """A worker that owns two partitions, has read both to their ends, and polls."""
    sound = {
        "elapsed_s": TICK,
        "reachable": True,
        "iterations": iterations,
        "running": True,
        "rebalance": 0,
        "failures": 0,
        "positions": {A: 10, B: 10},
        "ends": {A: 10, B: 10},
    }
    return Sample(**{**sound, **changes})


def watch(samples):
    """The reported stalls, one list a sample."""
    detector = StallDetector(LIMIT, 2 * TICK)
    return [detector.observe(one) for one in samples]


def minutes(count, change):
    """A sample every tick for `count` minutes; `change(n)` is how the n-th differs from a healthy one."""
    return [sample(**{"iterations": n, **change(n)}) for n in range(int(count * 60 / TICK))]


HARMLESS = {
    "idle": lambda n: {},
    "a backlog that gets less slowly": lambda n: {"positions": {A: n // 11, B: 10}, "ends": {A: 10**6, B: 10}},
    "a log that grows faster than it is read": lambda n: {"positions": {A: n, B: 10}, "ends": {A: 100 * n, B: 10}},
    "the broker unavailable": lambda n: {"reachable": False, "ends": {}, "iterations": 0, "positions": {A: 0, B: 0}},
    "the broker unavailable in a rebalance": lambda n: {"reachable": False, "running": False, "iterations": 0},
    "a leader unavailable": lambda n: {"positions": {A: 0, B: 10}, "ends": {B: 10}},
    "a broker that comes and goes": lambda n: {"reachable": n % 5 > 0, "iterations": 0},
    "a zombie's open transaction": lambda n: {"positions": {A: 10, B: 10}},
    "a long restore that makes progress": lambda n: {"running": False, "rebalance": n // 10, "positions": {}},
    "one rebalance after the other": lambda n: {"running": n % 7 == 0, "rebalance": n, "positions": {}},
    "commits retried for minutes": lambda n: {
        "positions": {A: 0, B: 10},
        "failures": n // 3,
        "running": n % 3 > 0,
    },
    "rebalances that fail for minutes": lambda n: {"running": False, "failures": n},
    "other partitions are processed first": lambda n: {
        "positions": {A: n // 60, B: n},
        "ends": {A: 9**9, B: 9**9},
        "queued": {A},
    },
    "stopped by a signal for an hour, again and again": lambda n: {
        "elapsed_s": 3600.0,
        "positions": {A: n // 4, B: 10},
        "ends": {A: 10**6, B: 10},
    },
    "partitions revoked before they were read": lambda n: {"positions": {A if n // 11 % 2 else B: 0}},
}


@pytest.mark.parametrize("what", HARMLESS)
def test_no_false_alarm(what):
    assert not [stall for reported in watch(minutes(9, HARMLESS[what])) for stall in reported if stall.expired]


@pytest.mark.parametrize(
    "what", ["idle", "the broker unavailable", "a leader unavailable", "a log that grows faster than it is read"]
)
def test_nothing_is_reported(what):
    assert not any(watch(minutes(9, HARMLESS[what])))


STUCK = {
    "a partition that is never fetched": (
        lambda n: {"positions": {A: 3, B: n}, "ends": {A: 10, B: n}},
        ("partition", A, 3, 10),
    ),
    "all partitions": (
        lambda n: {"positions": {A: 3, B: 10}, "ends": {A: 10 + n, B: 10}},
        ("partition", A, 3, None),
    ),
    "partitions that are fetched and never polled": (
        lambda n: {"positions": {A: 3, B: 10}, "ends": {A: 10, B: 12}, "queued": {A, B}},
        ("partition", A, 3, 10),
    ),
    "a poller that hangs while nothing waits": (lambda n: {"iterations": 7}, ("poller", None, None, None)),
    "a rebalance without progress": (lambda n: {"running": False}, ("rebalance", None, None, None)),
    "a batch that never ends": (
        lambda n: {"iterations": 7, "positions": {A: 3, B: 10}, "ends": {A: 10, B: 10}},
        ("partition", A, 3, 10),
    ),
    "a poller that hangs while the broker fails commits": (
        lambda n: {"iterations": 7, "failures": n},
        ("poller", None, None, None),
    ),
}


@pytest.mark.parametrize("what", STUCK)
def test_a_stall_is_reported_at_half_the_limit_and_expires_at_the_limit(what):
    change, expected = STUCK[what]
    reported = watch(minutes(2, change))
    first = next(n for n, stalls in enumerate(reported) if stalls)
    expired = next(n for n, stalls in enumerate(reported) if stalls and stalls[0].expired)
    assert (first * TICK, expired * TICK) == (LIMIT / 2, LIMIT)
    found = {(s.component, s.partition, s.position, None if expected[3] is None else s.end) for s in reported[expired]}
    assert expected in found


def test_a_stall_that_is_tolerated_expires_later():
    reported = watch(minutes(12, lambda n: {"positions": {A: 3, B: 10}, "ends": {A: 10, B: 10}, "failures": n}))
    assert next(n for n, stalls in enumerate(reported) if stalls and stalls[0].expired) * TICK == LIMIT * TOLERANCE


def test_a_stall_that_has_ended_is_not_reported():
    reported = watch(minutes(1.5, lambda n: {"positions": {A: 3 if n < 8 else 10, B: 10}, "ends": {A: 10, B: 10}}))
    assert reported[7]
    assert not any(reported[8:])


def test_a_stall_names_partition_position_and_end():
    [stall] = watch(minutes(0.6, lambda n: {"positions": {A: 3, B: 10}}))[6]
    assert str(stall) == "component=partition topic=orders partition=0 position=3 end=10 seconds=30"


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.1, TICK, 3600.0]),  # since the last sample
        st.booleans(),  # reachable
        st.booleans(),  # running
        st.integers(0, 2),  # how far A got
        st.booleans(),  # whether its end is known
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 10))
def test_progress_in_time_never_expires_whatever_else_happens(steps, every):
    """A partition, a rebalance and a poller that each make progress at least every tenth sample."""
    detector, position = StallDetector(LIMIT, LIMIT / 12), 0
    for n, (elapsed, reachable, running, moved, known) in enumerate(steps):
        position += moved + (n % every == 0)
        ends = {A: position + 5} if known else {}
        reported = detector.observe(Sample(elapsed, reachable, n // every, running, n // every, 0, {A: position}, ends))
        assert not [stall for stall in reported if stall.expired]


@given(STEPS)
def test_a_stalled_partition_is_reported_and_then_expires_whatever_came_before(steps):
    detector = StallDetector(LIMIT, 2 * TICK)
    for n, (elapsed, reachable, running, moved, known) in enumerate(steps):
        detector.observe(Sample(elapsed, reachable, n, running, n, 0, {A: moved}, {A: 9} if known else {}))
    reported = [detector.observe(sample(1000 + n, positions={A: 8}, ends={A: 9})) for n in range(int(LIMIT / TICK) + 1)]
    assert reported[-1][0].expired
    assert reported[-1][0].partition == A
    assert not reported[-2] or not reported[-2][0].expired or reported[-2][0].seconds >= LIMIT
    assert any(t and not t[0].expired for t in reported), "reported before it expires"
