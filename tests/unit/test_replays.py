"""Headers of replayed messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.model.records import REPLAYED_FROM, REPLAYS, SIDE_EFFECTS
from runtime.model.replays import NOT_REPLAYED, from_row, inherited, suppresses_side_effects, to_row

FROM = (REPLAYED_FROM, b"orders/2/17")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], NOT_REPLAYED),
        ([("consumed-by", b"orders")], NOT_REPLAYED),
        ([FROM, ("consumed-by", b"orders"), (REPLAYS, b"2")], (FROM, (REPLAYS, b"2"))),
        ([FROM, (REPLAYED_FROM, b"other")], (FROM,)),  # the first counts
        ([(REPLAYS, b"1"), (SIDE_EFFECTS, b"perform")], NOT_REPLAYED),
        ([(REPLAYED_FROM, None)], NOT_REPLAYED),
        ([(REPLAYED_FROM, b"x" * 513)], NOT_REPLAYED),
        ([(REPLAYED_FROM, b"\xff")], NOT_REPLAYED),
    ],
)
def test_which_headers_are_inherited(headers, expected):
    assert inherited(headers) == expected


@given(st.lists(st.tuples(st.sampled_from([REPLAYED_FROM, REPLAYS, SIDE_EFFECTS, "x"]), st.none() | st.binary())))
def test_a_row_keeps_what_is_inherited(headers):
    assert from_row(to_row(inherited(headers))) == inherited(headers)


def test_only_a_replay_suppresses_side_effects():
    assert not suppresses_side_effects(NOT_REPLAYED)
    assert suppresses_side_effects((FROM,))
    assert suppresses_side_effects((FROM, (SIDE_EFFECTS, b"maybe")))
    assert not suppresses_side_effects((FROM, (SIDE_EFFECTS, b"perform")))
