"""Records as they are sent again: bytes, headers, partitions, counters, waves and their order."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecosystem.replay.database import KnownOrder, KnownRecord
from ecosystem.replay.ordering import sort
from ecosystem.replay.plan import AmbiguousPlace, Plan
from ecosystem.replay.records import Mark, Place, Resubmission, mark_of, original_headers, replay_headers
from ecosystem.replay.resubmitting import cancelled_by_client, resubmission
from ecosystem.replay.target import Target, Unplaceable
from ecosystem.replay.waves import keys_of, waves
from history_service.stages import Stage
from history_service.timeline import StoredRecord
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from schemas.messages import Cancellation, Order
from schemas.topics import CANCELLATIONS, ORDERS

AT = datetime(2026, 11, 5, 12, 0, 0, 123000, tzinfo=UTC)
OWN = {"consumed-by", "also-consumed-by", "replayed-from", "replays", "side-effects", "tracestate"}
HEADERS = st.lists(
    st.tuples(st.sampled_from([*OWN, "trace", "", "event-id", "made-at", "Ä"]), st.none() | st.binary(max_size=4))
)
BYTES = st.none() | st.binary(max_size=8)


def known(topic=ORDERS.name, stage="CREATED", key=b"o", value=b"{}", headers=(), offset=17):
    flat = [part for name, text in headers for part in (name.encode(), text)] or None
    stored = StoredRecord(AT, AT, offset, 1, 2, stage, topic, key, value, flat)
    return KnownRecord(stored, "o")


ORDER = KnownOrder("o", "FAILED", "mug", 7, 1, frozenset())


@given(BYTES, BYTES, HEADERS)
def test_a_record_is_rebuilt_byte_for_byte(key, value, headers):
    record = resubmission(known(key=key, value=value, headers=headers), ORDER)

    assert (record.topic, record.partition, record.key, record.value) == ("orders", 2, key, value)
    assert record.timestamp_ms == 1_793_880_000_123
    assert record.headers == tuple(header for header in headers if header[0] not in OWN)
    assert (record.order_id, record.product, record.customer_id) == ("o", "mug", 7)
    assert str(record.place) == "orders/2/17"


@given(HEADERS, st.integers(1, 10**8), st.booleans())
def test_the_mark_of_a_replay_is_read_again(headers, times, side_effects):
    marks = replay_headers(Place("orders", 2, 17), times, side_effects=side_effects)
    sent = (*original_headers(headers), *marks)

    assert mark_of(sent) == (Place("orders", 2, 17), times)
    assert (("side-effects", b"perform") in sent) == side_effects
    assert original_headers(sent) == original_headers(headers)


def test_a_replay_leaves_the_trace_of_its_original_and_names_it():
    context = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    record = resubmission(known(headers=[("traceparent", context), ("tracestate", b"vendor=1"), ("x", b"1")]), ORDER)
    assert record.headers == (("replayed-trace", context), ("x", b"1"))


@given(HEADERS)
def test_headers_of_others_are_no_mark(headers):
    mark_of(headers)  # raises nothing
    assert mark_of([header for header in headers if header[0] != "replayed-from"]) is None


def test_records_about_no_order_bear_on_their_key():
    def subject(stage, key):
        record = resubmission(known(stage=stage, key=key), None)
        return record.product, record.customer_id

    assert subject("STOCK", b"mug") == ("mug", None)
    assert subject("CUSTOMER", b"-15") == (None, -15)
    assert subject("CUSTOMER", b"\xff") == (None, None)
    assert subject("REQUIRED_CHECKS", b"required-checks") == (None, None)


def order(**more):
    content = {"id": "o", "customer_id": 7, "product": "mug", "quantity": 1, "price": 5, "created_at": AT, **more}
    return Order(**content)


def test_what_a_client_cancelled_is_cancelled_again():
    cancelled = known(stage="CANCELLED", value=order(state="CANCELLED", reasons=("changed my mind",)).to_json())

    sent = cancelled_by_client(cancelled, ORDER, {("o", "not paid within 5 s")})
    assert (sent.topic, sent.stage, sent.key) == (CANCELLATIONS.name, "CANCELLATION", b"o")
    assert Cancellation.from_json(sent.value) == Cancellation(order_id="o", reason="changed my mind")
    assert (str(sent.place), sent.timestamp_ms) == ("orders/2/17", 1_793_880_000_123)
    assert cancelled_by_client(cancelled, ORDER, {("o", "changed my mind")}) is None
    assert cancelled_by_client(known(stage="CANCELLED", value=b"odd"), ORDER, set()) is None


def test_a_partition_is_kept_if_the_topic_has_as_many():
    settings = Settings()
    record = resubmission(known(), ORDER)

    def placed(number, record=record):
        return Target(settings, {record.topic: number}, {record.place.topic: 4}).partition(record)

    assert placed(4) == 2
    assert placed(5) == partition_of(b"o", 5)
    assert placed(3, record._replace(key=None)) == 2
    translated = record._replace(topic=CANCELLATIONS.name)
    assert placed(4, translated) == partition_of(b"o", 4)
    checks = record._replace(topic="required-checks", place=Place("required-checks", 2, 0))
    assert placed(4, checks) == 2
    with pytest.raises(Unplaceable, match="orders checks"):
        placed(5, checks)


KEYS = st.sampled_from(["a", "b", "c"])


@st.composite
def records(draw):
    stage = draw(st.sampled_from([Stage.CREATED, Stage.PAYMENT, Stage.STOCK, Stage.CUSTOMER, Stage.REQUIRED_CHECKS]))
    place = Place("orders", draw(st.integers(0, 2)), draw(st.integers(0, 10**6)))
    order_id = product = customer = None
    if stage in {Stage.CREATED, Stage.PAYMENT}:
        order_id, product, customer = draw(KEYS), draw(KEYS), draw(st.integers(1, 3))
    elif stage is Stage.STOCK:
        product = draw(KEYS)
    elif stage is Stage.CUSTOMER:
        customer = draw(st.integers(1, 3))
    part = place.partition
    return Resubmission(place, stage.value, "orders", part, b"", b"", (), 0, order_id, product, customer)


@given(st.lists(records(), max_size=25))
def test_a_wave_never_bears_twice_on_one_thing_and_is_the_first_possible(given_records):
    found = list(waves(given_records))
    assert [record for _, record in found] == given_records

    def conflict(first, second):
        checks = Stage.REQUIRED_CHECKS.value
        if (first.stage == checks) != (second.stage == checks):
            return True
        return bool({*keys_of(first)} & {*keys_of(second)})

    for n, (wave, record) in enumerate(found):
        before = [other for other, earlier in found[:n] if conflict(earlier, record)]
        assert wave > max(before, default=0)
        if record.stage != Stage.REQUIRED_CHECKS:
            assert wave == max(before, default=0) + 1


@given(st.data(), st.permutations(range(12)))
def test_a_sorted_order_keeps_every_chain(data, base):
    true = data.draw(st.permutations(range(12)))
    chains = data.draw(st.lists(st.lists(st.sampled_from(true), unique=True).map(lambda c: sorted(c, key=true.index))))
    found = sort(base, chains)
    assert sorted(found) == list(range(12))
    for chain in chains:
        assert sorted(chain, key=found.index) == chain
    assert sort(base, []) == list(base)


@given(st.lists(st.lists(st.integers(0, 5), unique=True)))
def test_contradictions_lose_nothing(chains):
    assert sorted(sort(range(6), chains)) == list(range(6))


@pytest.fixture
def plan(tmp_path):
    with Plan(tmp_path, 3) as plan:
        yield plan


def planned(offset, partition=0, stage=Stage.CREATED, order_id="o"):
    place = Place("orders", partition, offset)
    return Resubmission(place, stage.value, "orders", partition, b"k", None, (("h", None),), 5, order_id, "mug", 1)


def test_a_plan_counts_replays_and_refuses_the_fourth(plan):
    for offset, times in enumerate([0, 1, 2, 3, 4]):
        plan.add(1, 1000 + offset, planned(offset))
        for time in range(1, times + 1):
            plan.count(Mark(planned(offset).place, time))
    plan.complete()

    found = list(plan.records())
    assert [(one.record.place.offset, one.replays) for one in found] == [(0, 1), (1, 2), (2, 3)]
    assert found[0].record == planned(0)
    assert plan.exhausted(1) == (2, [(planned(3).place, 3)])
    assert plan.total == 3
    assert [tuple(part) for part in plan.parts()] == [("CREATED", "orders", 3)]
    plan.exclude([planned(0).place])
    assert plan.total == 2


def test_a_partition_keeps_its_order_whatever_its_times_say(plan):
    for offset, at in enumerate([500, 100, 600]):
        plan.add(1, at, planned(offset))
    plan.add(2, 500, planned(7, partition=1, stage=Stage.PAYMENT))
    plan.add(3, 550, planned(9, partition=2))
    plan.complete()
    assert [one.record.place.offset for one in plan.records()] == [0, 1, 7, 9, 2]


def test_two_records_of_one_place_are_told(plan):
    plan.add(1, 1, planned(0))
    plan.add(2, 1, planned(0))
    with pytest.raises(AmbiguousPlace, match="two records orders/0/0"):
        plan.complete()
