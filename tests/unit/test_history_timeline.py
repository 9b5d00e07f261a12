"""The records of an order come in causal order, whole, and the order as it was at a time is told from them."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history_service.stages import Stage
from history_service.timeline import StoredRecord, in_causal_order, order_at, timeline
from schemas.messages import OrderState
from schemas.topics import ORDERS
from tests.samples import order

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def record(stage, ms=0, offset=0, topic="orders", value=b"{}", *, log=1, key=b"o1", headers=None, partition=0):
    produced_at = START + timedelta(milliseconds=ms)
    return StoredRecord(produced_at, START, offset, log, partition, stage, topic, key, value, headers)


def stages(*records):
    return [r.stage for r in timeline(records)]


def test_clocks_that_differ_put_no_consequence_before_its_cause():
    found = stages(
        record("SHIPPED", 3, offset=2),
        record("VERDICT", 2, topic="order-validations", log=2),
        record("VALIDATED", 8, offset=1),
        record("CREATED", 7, offset=0),
        record("FULFILLED", 4, topic="fulfilments", log=3),
        record("PAYMENT", 9, topic="payments", log=4),
    )
    assert found == ["CREATED", "VERDICT", "VALIDATED", "PAYMENT", "FULFILLED", "SHIPPED"]


def test_stages_decide_between_equal_times():
    verdicts = [record("VERDICT", offset=n, topic="order-validations", log=2) for n in range(3)]
    found = stages(record("LEVEL", log=4), record("VALIDATED", offset=1), *verdicts, record("CREATED"))
    assert found == ["CREATED", "VERDICT", "VERDICT", "VERDICT", "VALIDATED", "LEVEL"]


RECORDS = st.lists(
    st.builds(
        record,
        st.sampled_from([*(stage.value for stage in Stage), "FROM_A_LATER_VERSION"]),
        st.integers(0, 5),
        st.integers(0, 9),
        log=st.integers(1, 2),
        partition=st.integers(0, 1),
    ),
    unique_by=lambda r: (r.log, r.partition, r.offset),
)


@given(RECORDS, st.randoms())
def test_any_records_are_ordered_whole_and_the_same_in_whatever_order_they_come(records, chance):
    ordered = in_causal_order(records)
    shuffled = list(records)
    chance.shuffle(shuffled)
    assert sorted(ordered) == sorted(records)
    assert in_causal_order(shuffled) == ordered


@given(RECORDS)
def test_records_without_contradictions_keep_the_order_of_their_partition(records):
    plain = [r._replace(stage="STOCK") for r in records]
    ordered = in_causal_order(plain)
    places = {}
    for r in ordered:
        assert places.get((r.log, r.partition), -1) < r.offset
        places[r.log, r.partition] = r.offset


def test_a_record_is_shown_with_its_place_its_bytes_and_the_time_since_the_one_before():
    headers = [b"trace", b"\xff", b"event-id", b"E-1", b"none", None, b"\xfe", b"x"]
    first, second, third, fourth = timeline(
        [
            record("CREATED", value=b'{"price":1.50,"note":null}', headers=headers),
            record("VALIDATED", 1500, offset=1, value=b'"\xff"'),
            record("VALIDATED", 1500, offset=2, value=None),
            record("VALIDATED", 1000, offset=3, value=b'"\xff"'),
        ]
    )
    assert json.loads(first.to_json())["payload"] == {"price": 1.5, "note": None}
    assert [(h.name, h.value, h.base64) for h in first.headers] == [
        ("trace", None, base64.b64encode(b"\xff").decode()),
        ("event-id", "E-1", None),
        ("none", None, None),
        ("\ufffd", "x", None),
    ]
    assert (second.payload, second.payload_base64) == (None, base64.b64encode(b'"\xff"').decode())
    assert (third.payload, third.payload_base64) == (None, None)
    assert [r.seconds_since_previous for r in (first, second, third, fourth)] == [None, 1.5, 0, -0.5]
    assert [r.repeated for r in (first, second, third, fourth)] == [False, False, False, True]
    assert (second.topic, second.partition, second.offset) == ("orders", 0, 1)


@pytest.mark.parametrize("raw", [b"null", b"NaN", b"1e999", b'"\\ud83e"', b"[" * 1000 + b"]" * 1000, b"", b"{"])
def test_a_value_that_is_no_json_of_its_own_is_shown_in_base64(raw):
    [shown] = timeline([record("UNKNOWN", value=raw)])
    assert base64.b64decode(shown.payload_base64) == raw
    assert json.loads(shown.to_json())


@given(st.binary())
def test_any_bytes_can_be_shown(raw):
    [shown] = timeline([record("UNKNOWN", value=raw, headers=[raw, raw])])
    body = json.loads(shown.to_json())
    assert (
        base64.b64decode(body["payloadBase64"]) == raw
        if "payloadBase64" in body
        else json.loads(raw) == body["payload"]
    )


def in_state(state, ms, offset):
    value = order(state=state).to_json()
    return record(state.value, ms, offset, value=value)


def test_the_order_is_told_as_it_was_at_a_time():
    way = [
        in_state(OrderState.CREATED, 0, 0),
        record("VERDICT", 5, topic="order-validations", log=2),
        in_state(OrderState.VALIDATED, 10, 1),
        in_state(OrderState.CREATED, 15, 2),  # replayed
        in_state(OrderState.SHIPPED, 20, 3),
    ]

    def then(ms):
        found = order_at("o1", way, START + timedelta(milliseconds=ms))
        return found and found.state

    assert [then(ms) for ms in (-1, 0, 9, 10, 19, 20)] == [
        None,
        *("CREATED", "CREATED", "VALIDATED", "VALIDATED", "SHIPPED"),
    ]
    assert {r.topic for r in way} == {ORDERS.name, "order-validations"}
