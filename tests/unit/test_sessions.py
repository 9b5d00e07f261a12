"""Session windows: equal to their definition, whatever the order of arrival."""

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.state.sessions import add_to_session
from tests.samples import NOON

GAP = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def brute_force(events):
    """Sessions as they are defined: events by time, cut wherever the silence is longer than the gap."""
    sessions = []
    for at, value in sorted(events):
        if sessions and at - sessions[-1][1] <= GAP:
            sessions[-1] = (sessions[-1][0], at, sessions[-1][2] + value)
        else:
            sessions.append((at, at, value))
    return sessions


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 3000)), max_size=40))
def test_sessions_equal_their_definition_in_any_order_of_arrival(events):
    sessions, seen = [], []
    for minute, value in events:
        at = NOON + minute * MINUTE
        joined, sessions = add_to_session(sessions, at, Decimal(value), GAP)
        seen.append((at, value))
        assert [(s.start, s.end, s.total) for s in sessions] == brute_force(seen)
        assert joined in sessions
        assert joined.start <= at <= joined.end


@pytest.mark.parametrize(("minutes", "sessions"), [(60, 1), (61, 2), (-60, 1), (-61, 2)])
def test_an_event_exactly_at_the_gap_belongs_to_the_session(minutes, sessions):
    _, first = add_to_session([], NOON, Decimal(1), GAP)
    _, both = add_to_session(first, NOON + minutes * MINUTE, Decimal(1), GAP)
    assert len(both) == sessions
