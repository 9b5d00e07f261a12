"""What counts as standing still, and what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.health.stalls import PATIENCE, Sample, Stalls
from runtime.model.records import TopicPartition

LIMIT, TICK = 60.0, 5.0
A, B = TopicPartition("orders", 0), TopicPartition("orders", 1)


def glance(turns, **changes):
    """A worker that owns two partitions, has read both to their ends, and whose reader comes round."""
    sound = {
        "elapsed_s": TICK,
        "reachable": True,
        "turns": turns,
        "running": True,
        "takeover": 0,
        "failures": 0,
        "positions": {A: 10, B: 10},
        "ends": {A: 10, B: 10},
    }
    return Sample(**{**sound, **changes})


def watch(glances):
    """All that is told, one list a glance."""
    stalls = Stalls(LIMIT, 2 * TICK)
    return [stalls.look(one) for one in glances]


def minutes(count, change):
    """A glance every tick for so many minutes; `change(n)` differs from a sound one."""
    return [glance(**{"turns": n, **change(n)}) for n in range(int(count * 60 / TICK))]


HARMLESS = {
    "idle": lambda n: {},
    "a backlog that gets less slowly": lambda n: {"positions": {A: n // 11, B: 10}, "ends": {A: 10**6, B: 10}},
    "a log that grows faster than it is read": lambda n: {"positions": {A: n, B: 10}, "ends": {A: 100 * n, B: 10}},
    "the broker away": lambda n: {"reachable": False, "ends": {}, "turns": 0, "positions": {A: 0, B: 0}},
    "the broker away in a takeover": lambda n: {"reachable": False, "running": False, "turns": 0},
    "a leader away": lambda n: {"positions": {A: 0, B: 10}, "ends": {B: 10}},
    "a broker that comes and goes": lambda n: {"reachable": n % 5 > 0, "turns": 0},
    "a zombie's transaction holds back what is behind it": lambda n: {"positions": {A: 10, B: 10}},
    "a long restore that gets on": lambda n: {"running": False, "takeover": n // 10, "positions": {}},
    "one takeover after the other": lambda n: {"running": n % 7 == 0, "takeover": n, "positions": {}},
    "commits tried again, for minutes": lambda n: {
        "positions": {A: 0, B: 10},
        "failures": n // 3,
        "running": n % 3 > 0,
    },
    "takeovers that fail, for minutes": lambda n: {"running": False, "failures": n},
    "its turn comes late": lambda n: {"positions": {A: n // 60, B: n}, "ends": {A: 9**9, B: 9**9}, "queued": {A}},
    "stopped by a signal for an hour, again and again": lambda n: {
        "elapsed_s": 3600.0,
        "positions": {A: n // 4, B: 10},
        "ends": {A: 10**6, B: 10},
    },
    "partitions that go before they were read": lambda n: {"positions": {A if n // 11 % 2 else B: 0}},
}


@pytest.mark.parametrize("what", HARMLESS)
def test_no_false_alarm(what):
    assert not [stall for told in watch(minutes(9, HARMLESS[what])) for stall in told if stall.over]


@pytest.mark.parametrize(
    "what", ["idle", "the broker away", "a leader away", "a log that grows faster than it is read"]
)
def test_nothing_is_even_told(what):
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
    "partitions of which all is fetched and nothing is taken": (
        lambda n: {"positions": {A: 3, B: 10}, "ends": {A: 10, B: 12}, "queued": {A, B}},
        ("partition", A, 3, 10),
    ),
    "a reader that does not come round, though nothing waits": (lambda n: {"turns": 7}, ("reader", None, None, None)),
    "a takeover that does not get on": (lambda n: {"running": False}, ("takeover", None, None, None)),
    "a batch in hand that never ends": (
        lambda n: {"turns": 7, "positions": {A: 3, B: 10}, "ends": {A: 10, B: 10}},
        ("partition", A, 3, 10),
    ),
    "a reader that hangs while the broker fails commits": (
        lambda n: {"turns": 7, "failures": n},
        ("reader", None, None, None),
    ),
}


@pytest.mark.parametrize("what", STUCK)
def test_what_stands_still_is_told_at_half_the_limit_and_over_at_the_limit(what):
    change, expected = STUCK[what]
    told = watch(minutes(2, change))
    first = next(n for n, stalls in enumerate(told) if stalls)
    over = next(n for n, stalls in enumerate(told) if stalls and stalls[0].over)
    assert (first * TICK, over * TICK) == (LIMIT / 2, LIMIT)
    found = {(s.what, s.partition, s.position, None if expected[3] is None else s.end) for s in told[over]}
    assert expected in found


def test_what_has_an_excuse_is_over_in_the_end():
    told = watch(minutes(12, lambda n: {"positions": {A: 3, B: 10}, "ends": {A: 10, B: 10}, "failures": n}))
    assert next(n for n, stalls in enumerate(told) if stalls and stalls[0].over) * TICK == LIMIT * PATIENCE


def test_what_gets_on_again_is_not_told_any_more():
    told = watch(minutes(1.5, lambda n: {"positions": {A: 3 if n < 8 else 10, B: 10}, "ends": {A: 10, B: 10}}))
    assert told[7]
    assert not any(told[8:])


def test_a_stall_says_where_and_how_far():
    [stall] = watch(minutes(0.6, lambda n: {"positions": {A: 3, B: 10}}))[6]
    assert str(stall) == "partition stands still topic=orders partition=0 position=3 end=10 seconds=30"


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.1, TICK, 3600.0]),  # since the last glance
        st.booleans(),  # reachable
        st.booleans(),  # running
        st.integers(0, 2),  # how far A got
        st.booleans(),  # whether its end is known
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 10))
def test_whatever_happens_what_gets_on_in_time_is_never_over(steps, every):
    """A partition that moves, a takeover that gets on and a reader that comes round at least every tenth glance."""
    stalls, position = Stalls(LIMIT, LIMIT / 12), 0
    for n, (elapsed, reachable, running, moved, known) in enumerate(steps):
        position += moved + (n % every == 0)
        ends = {A: position + 5} if known else {}
        told = stalls.look(Sample(elapsed, reachable, n // every, running, n // every, 0, {A: position}, ends))
        assert not [stall for stall in told if stall.over]


@given(STEPS)
def test_whatever_came_before_a_partition_that_stands_still_is_told_and_then_over(steps):
    stalls = Stalls(LIMIT, 2 * TICK)
    for n, (elapsed, reachable, running, moved, known) in enumerate(steps):
        stalls.look(Sample(elapsed, reachable, n, running, n, 0, {A: moved}, {A: 9} if known else {}))
    told = [stalls.look(glance(1000 + n, positions={A: 8}, ends={A: 9})) for n in range(int(LIMIT / TICK) + 1)]
    assert told[-1][0].over
    assert told[-1][0].partition == A
    assert not told[-2] or not told[-2][0].over or told[-2][0].seconds >= LIMIT
    assert any(t and not t[0].over for t in told), "told before it is over"
