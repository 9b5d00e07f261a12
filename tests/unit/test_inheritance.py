"""Headers that follow a message through everything that comes of it."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.model.inheritance import (
    NOTHING,
    from_row,
    inheritable,
    inheritable_with_trace,
    to_row,
    without_trace,
)
from runtime.model.records import REPLAYED_FROM, REPLAYS, SIDE_EFFECTS
from runtime.model.traces import TRACEPARENT, TRACESTATE

FROM = (REPLAYED_FROM, b"orders/2/17")
TRACE = (TRACEPARENT, b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
STATE = (TRACESTATE, b"vendor=1")

HEADERS = st.lists(
    st.tuples(
        st.sampled_from([REPLAYED_FROM, REPLAYS, SIDE_EFFECTS, TRACEPARENT, TRACESTATE, "x"]), st.none() | st.binary()
    )
)


class Row(NamedTuple):
    replayed: dict | None = None
    trace: dict | None = None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], NOTHING),
        ([("consumed-by", b"orders")], NOTHING),
        ([FROM, ("consumed-by", b"orders"), (REPLAYS, b"2")], (FROM, (REPLAYS, b"2"))),
        ([FROM, (REPLAYED_FROM, b"other")], (FROM,)),  # the first counts
        ([(REPLAYS, b"1"), (SIDE_EFFECTS, b"perform")], NOTHING),
        ([(REPLAYED_FROM, None)], NOTHING),
        ([(REPLAYED_FROM, b"x" * 513)], NOTHING),
        ([(REPLAYED_FROM, b"\xff")], NOTHING),
        ([TRACE, FROM], (FROM,)),
    ],
)
def test_which_headers_are_inherited_without_traces(headers, expected):
    assert inheritable(headers) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("consumed-by", b"orders")], NOTHING),
        ([TRACE, FROM, STATE], (FROM, TRACE, STATE)),  # marks of a replay come first
        ([TRACE, (REPLAYS, b"1")], (TRACE,)),
        ([TRACE, (TRACESTATE, b"x" * 513)], (TRACE,)),
    ],
)
def test_which_headers_are_inherited_with_traces(headers, expected):
    assert inheritable_with_trace(headers) == expected
    assert without_trace(expected) == tuple(header for header in expected if header not in (TRACE, STATE))


@given(HEADERS)
def test_a_row_keeps_what_is_inherited(headers):
    for inherited in (inheritable(headers), inheritable_with_trace(headers)):
        assert from_row(Row(**to_row(inherited))) == inherited


@given(HEADERS)
def test_a_row_keeps_a_trace_apart_from_a_replay(headers):
    """A version without traces would take what it finds in `replayed` for marks of a replay."""
    row = to_row(inheritable_with_trace(headers))
    assert set(row.get("replayed", {})) <= {REPLAYED_FROM, REPLAYS, SIDE_EFFECTS}
    assert row.get("replayed") != {}
