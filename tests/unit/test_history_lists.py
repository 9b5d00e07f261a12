"""Filters, cursors and parameters of lists of orders, and how the history says how far it is behind."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from history_service import inputs
from history_service.filters import Filters, InvalidCursorError, Position, read_cursor, write_cursor
from history_service.freshness import CHECKED_S, SinkProgress, lag_s, progress_of
from runtime.http.answers import HttpProblem
from schemas.messages import OrderState
from schemas.times import parse_instant

TIMES = st.datetimes(timezones=st.just(UTC))
IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=128)
FILTERS = st.builds(
    Filters,
    states=st.sets(st.sampled_from(OrderState)).map(lambda states: tuple(sorted(states))),
    customer_id=st.none() | st.integers(-(2**63), 2**63 - 1),
    product=st.none() | st.text(),
    reason=st.none() | st.text(min_size=3),
    since=st.none() | TIMES,
    before=st.none() | TIMES,
    part=st.none() | st.text(min_size=3),
)


@given(FILTERS, TIMES, IDS)
def test_a_cursor_is_read_as_it_was_written(filters, at, order_id):
    assert read_cursor(filters, write_cursor(filters, Position(at, order_id))) == (at, order_id)


@given(FILTERS, FILTERS, TIMES)
def test_a_cursor_of_other_filters_is_refused(filters, others, at):
    cursor = write_cursor(filters, Position(at, "o1"))
    if filters != replace(others, since=filters.since, before=filters.before):
        with pytest.raises(InvalidCursorError, match="other filters"):
            read_cursor(others, cursor)


@given(st.text() | st.binary().map(lambda raw: raw.hex()))
def test_a_text_that_is_no_cursor_is_refused(text):
    with pytest.raises(InvalidCursorError, match="must be `next`"):
        read_cursor(Filters(), text)


@given(TIMES, st.integers(0, 60), st.sampled_from("abcdefghij-_0189"))
def test_a_cursor_that_was_changed_is_refused(at, place, character):
    cursor = write_cursor(Filters(), Position(at, "a-longer-order-id-of-some-client"))
    changed = cursor[:place] + character + cursor[place + 1 :]
    if changed != cursor:
        with pytest.raises(InvalidCursorError):
            read_cursor(Filters(), changed)


@given(FILTERS, TIMES, TIMES, TIMES)
def test_a_list_of_the_last_hours_goes_on_although_its_times_have_moved(filters, since, before, at):
    cursor = write_cursor(filters, Position(at, "o1"))
    assert read_cursor(replace(filters, since=since, before=before), cursor) == (at, "o1")


def request(query):
    return make_mocked_request("GET", f"/v1/orders?{query}")


def test_parameters_are_read():
    read = inputs.filters_of(
        request(
            "state=FAILED&state=CREATED&state=FAILED&customerId=-7&product=mug%20x&q=ab%00&from=2026-01-31T12:00:00Z"
        )
    )
    assert read == Filters(
        states=(OrderState.CREATED, OrderState.FAILED),
        customer_id=-7,
        product="mug x",
        since=datetime(2026, 1, 31, 12, tzinfo=UTC),
        part="ab\ufffd",
    )
    assert inputs.limit_of(request("")) == 50
    assert inputs.limit_of(request("limit=500")) == 500


@pytest.mark.parametrize(
    ("query", "name", "remedy"),
    [
        ("state=LOST", "state", "CREATED, VALIDATED, FAILED"),
        ("customerId=x", "customerId", "whole number"),
        ("customerId=9223372036854775808", "customerId", "whole number"),
        ("customerId=1&customerId=2", "customerId", "give it once"),
        ("q=ab", "q", "3 to 256"),
        ("reason=", "reason", "3 to 256"),
        ("q=" + "x" * 257, "q", "3 to 256"),
        ("product=" + "x" * 257, "product", "at most 256"),
        ("from=2026-02-30T12:00:00Z", "from", "2026-01-31T12:00:00Z"),
        ("to=2026-01-31T12:00:00", "to", "with its zone"),
        ("to=2026-01-31T12:00:00+01:00", "to", "%2B"),
        ("custmerId=7", "custmerId", "use state, customerId, product"),
        ("limit=0", "limit", "1 to 500"),
        ("limit=501", "limit", "1 to 500"),
        ("limit=%D9%A1", "limit", "1 to 500"),
    ],
)
def test_a_parameter_is_refused_by_its_name_with_a_remedy(query, name, remedy):
    read = inputs.limit_of if name == "limit" else inputs.filters_of
    with pytest.raises(HttpProblem) as refused:
        read(request(query))
    assert refused.value.status == 400
    [error] = refused.value.errors
    assert error.name == name
    assert remedy in error.reason


ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(1970, 1, 2), datetime(2099, 12, 30), timezones=ZONES))  # noqa: DTZ001 - the bounds have none
def test_an_instant_is_read_in_any_zone(at):
    assert parse_instant(at.isoformat()) == at


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (SinkProgress(0, None, 0, None), None),
        (SinkProgress(4, None, 1, 0.1), None),
        (SinkProgress(4, None, 0, 0.4), 0),
        (SinkProgress(4, 7.5, 0, 0.4), 7.5),
        (SinkProgress(4, None, 0, CHECKED_S + 1), CHECKED_S + 1),
        (SinkProgress(4, 2.0, 0, 30.0), 30.0),
    ],
    ids=["nothing read yet", "a partition without any", "complete", "behind", "nobody checks", "stopped while behind"],
)
def test_the_lag_is_zero_without_records_to_store_and_unknown_without_knowledge(progress, expected):
    assert lag_s(progress) == expected


def test_a_clock_that_is_behind_makes_no_negative_lag():
    row = SimpleNamespace(partitions=4, behind_s=-3, unknown=0, silent_s=-0.1)
    assert lag_s(progress_of(row)) == 0
