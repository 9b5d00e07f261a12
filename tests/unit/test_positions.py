"""Positions compared with logs: lost ranges are reported, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.data_loss.losses import LossCause
from runtime.data_loss.positions import LostRange, Position, changelog_position, input_position

OFFSETS = st.integers(0, 50)


@pytest.mark.parametrize(
    ("committed", "start", "end", "expected"),
    [
        pytest.param(None, 0, 0, Position(0), id="an empty topic"),
        pytest.param(None, 0, 9, Position(0), id="never read, all there"),
        pytest.param(None, 5, 9, Position(5), id="never read, and it begins late: nothing was missed"),
        pytest.param(0, 0, 9, Position(0), id="at the beginning"),
        pytest.param(4, 0, 9, Position(4), id="in between"),
        pytest.param(9, 0, 9, Position(9), id="all read"),
        pytest.param(5, 5, 9, Position(5), id="what was read is removed"),
        pytest.param(9, 9, 9, Position(9), id="all read and removed"),
        pytest.param(4, 5, 9, Position(5, LostRange(4, 5, LossCause.REMOVED)), id="one was not read"),
        pytest.param(0, 9, 9, Position(9, LostRange(0, 9, LossCause.REMOVED)), id="none was read, none is left"),
        pytest.param(9, 0, 4, Position(0, LostRange(4, 9, LossCause.CUT_OFF)), id="made anew, or truncated"),
        pytest.param(9, 0, 0, Position(0, LostRange(0, 9, LossCause.CUT_OFF)), id="made anew, and empty"),
        pytest.param(9, 2, 4, Position(2, LostRange(4, 9, LossCause.CUT_OFF)), id="made anew, and begins late"),
    ],
)
def test_the_next_offset_of_an_input(committed, start, end, expected):
    assert input_position(committed, start, end) == expected


def test_expired_offsets_with_state_may_have_lost_records():
    assert input_position(None, 5, 9, has_state=True) == Position(5, LostRange(0, 5, LossCause.OFFSETS_GONE))
    assert input_position(None, 0, 9, has_state=True) == Position(0), "all is read once more"
    assert input_position(7, 5, 9, has_state=True) == Position(7)


@given(st.none() | OFFSETS, OFFSETS, OFFSETS)
def test_an_input_continues_within_its_log_and_reports_the_skipped_range(committed, start, more):
    end = start + more
    at = input_position(committed, start, end)
    assert start <= at.offset <= end
    if committed is not None and committed <= end:
        passed = range(committed, at.offset)
        assert at.lost == (LostRange(passed.start, passed.stop, LossCause.REMOVED) if passed else None)


@pytest.mark.parametrize(
    ("applied", "start", "end", "expected", "fits"),
    [
        pytest.param(None, 0, 0, Position(0), True, id="nothing anywhere"),
        pytest.param(None, 0, 9, Position(0), True, id="an empty disk"),
        pytest.param(
            None, 4, 9, Position(4, LostRange(0, 4, LossCause.REMOVED)), True, id="an empty disk, rows removed"
        ),
        pytest.param(8, 0, 9, Position(9), True, id="complete"),
        pytest.param(3, 0, 9, Position(4), True, id="behind"),
        pytest.param(3, 4, 9, Position(4), True, id="behind, it has what was removed"),
        pytest.param(
            2, 4, 9, Position(4, LostRange(0, 4, LossCause.REMOVED)), False, id="behind, it lacks what was removed"
        ),
        pytest.param(9, 0, 9, Position(0, LostRange(9, 10, LossCause.CUT_OFF)), False, id="ahead"),
        pytest.param(
            9, 0, 0, Position(0, LostRange(0, 10, LossCause.CUT_OFF)), False, id="the changelog was made anew"
        ),
    ],
)
def test_the_next_offset_of_a_changelog(applied, start, end, expected, fits):
    assert changelog_position(applied, start, end) == (expected, fits)
