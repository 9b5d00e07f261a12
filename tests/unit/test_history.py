"""The history's projection gives the same row in whatever order, batches and number of times records come."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history_service.partitions import Month, Window
from history_service.projection import COLUMNS, OrderChange, project, project_raw
from history_service.stages import TOPIC_STAGES, Stage
from runtime.kafka.topics import public_topics
from runtime.model.sink import SinkRecord
from schemas import topics
from schemas.messages import OrderState
from tests.history import FIRST_MS, MADE, WAY, order, record

NOW = datetime(2026, 11, 29, tzinfo=UTC)
START = datetime.fromtimestamp(FIRST_MS / 1000, UTC)


def rows(*records):
    return project(records, lambda: NOW)


def row(change):
    return dict(zip(COLUMNS, change.columns, strict=True))


def ms(after):
    return START + timedelta(milliseconds=after)


def test_the_row_of_an_order_has_its_latest_state_and_the_first_time_of_each_stage():
    assert row(rows(*WAY).changes["o"]) == {
        "attempt": 1,
        "state_rank": 2,
        "state_log": 1,
        "state_offset": 12,
        "state": "CANCELLED",
        "created_at": MADE,
        "customer_id": 7,
        "product": "mug",
        "quantity": 2,
        "price": 12,
        "value": 24,
        "reasons": ["Not paid"],
        "updated_at": ms(14),
        "failed_checks": ["AGE_CHECK", "STOCK_CHECK"],
        "posted_at": ms(1),
        "judged_at": ms(2),
        "validated_at": ms(5),
        "failed_at": None,
        "paid_at": ms(6),
        "checked_in_at": ms(9),
        "fulfilled_at": ms(10),
        "shipped_at": None,
        "cancellation_requested_at": ms(11),
        "cancelled_at": ms(12),
        "refunded_at": ms(13),
        "enriched_at": ms(8),
    }


@given(st.permutations(range(len(WAY))), st.sets(st.integers(1, len(WAY) - 1)), st.sets(st.integers(0, len(WAY) - 1)))
def test_records_may_come_in_any_order_in_any_batches_and_again(order_of_arrival, cuts, repeated):
    arrived = [WAY[n] for n in [*order_of_arrival, *repeated]]
    merged: OrderChange | None = None
    edges = [0, *sorted(cuts), len(arrived)]
    for first, end in itertools.pairwise(edges):
        change = rows(*arrived[first:end]).changes["o"]
        if merged is None:
            merged = change
        else:
            merged.merge(change)
    assert merged is not None
    assert row(merged) == row(rows(*WAY).changes["o"])


def test_of_conflicting_orders_the_first_in_the_log_counts():
    first = record(topics.ORDERS, order(OrderState.CREATED, product="first"), 1, 0)
    second = record(topics.ORDERS, order(OrderState.CREATED, product="second"), 2, 0)
    assert row(rows(second, first).changes["o"])["product"] == "first"


def test_words_are_ids_reasons_and_header_values_but_not_those_of_the_runtime():
    assert [word for _, _, word in rows(*WAY).words] == ["o", "pay-1", "pay-2", "e-1", "not paid", "r-1", "o"]


def test_a_record_keeps_its_bytes_and_headers():
    *_, stage, order_id, key, value, headers = rows(WAY[8]).records[0]
    assert (stage, order_id, key, value) == ("CHECK_IN", "o", b"o", WAY[8].value)
    assert headers == [b"event-id", b"E-1", b"consumed-by", b"orders", b"trace", None, b"odd", b"\xff"]


def stage_and_order(r):
    return rows(r).records[0][5:7]


ODD = SinkRecord("orders", 0, 1, 0, FIRST_MS, b"o", b"{}")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("UNKNOWN", "o")),
        ({"value": None}, ("UNKNOWN", "o")),
        ({"key": b"\xff"}, ("UNKNOWN", None)),
        ({"key": b"o\0"}, ("UNKNOWN", None)),
        ({"key": b"o" * 129}, ("UNKNOWN", None)),
        ({"key": None}, ("UNKNOWN", None)),
        ({"topic": "payments"}, ("UNKNOWN", None)),
        ({"topic": "customers"}, ("CUSTOMER", None)),
        ({"topic": "customers", "value": None}, ("CUSTOMER", None)),
        ({"topic": "orders.dead-letters"}, ("DEAD_LETTER", "o")),
        ({"topic": "orders.dead-letters", "key": b"x", "value": WAY[0].value}, ("DEAD_LETTER", "o")),
        ({"topic": "payments.dead-letters"}, ("DEAD_LETTER", None)),
        ({"topic": "gold"}, ("UNKNOWN", "o")),
    ],
)
def test_any_record_has_a_stage(changes, expected):
    assert stage_and_order(ODD._replace(**changes)) == expected


@pytest.mark.parametrize("at", [-1, -(2**63), 2**63 - 1])
def test_any_timestamp_has_a_time(at):
    produced_at, *_ = rows(ODD._replace(timestamp_ms=at)).records[0]
    assert produced_at in {datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)}


def test_characters_that_the_database_cannot_store_are_replaced_in_the_projection():
    change = rows(record(topics.ORDERS, order(OrderState.FAILED, ("a\0b",), product="m\0g"), 0, 0)).changes["o"]
    assert (row(change)["product"], row(change)["reasons"]) == ("m\ufffdg", ["a\ufffdb"])


def test_a_raw_row_says_nothing_about_an_order():
    raw = project_raw(WAY[0], lambda: NOW)
    assert (raw.records[0][5:7], raw.changes, raw.words) == ((Stage.UNKNOWN, None), {}, [])


def test_every_public_topic_is_kept():
    assert set(TOPIC_STAGES) == set(public_topics())


def test_months_have_partitions_ahead_and_are_dropped_by_retention():
    window = Window(NOW, 2)
    assert [month.partition for month in window.ahead] == ["records_2026_11", "records_2026_12", "records_2027_01"]
    kept = [Month(2026, 9), Month(2027, 1)]
    assert window.partitioned([Month(2026, 8), *kept, Month(2027, 2), Month(1970, 1)]) == set(kept)
    names = ["records_default", "records_2026_08", "records_2026_09", "records_2026_11"]
    assert window.expired(names) == ["records_2026_08"]
    assert Window(NOW, 0).expired(names) == []
    assert Month(1971, 1) not in Window(NOW, 0).partitioned([Month(1971, 1)])
