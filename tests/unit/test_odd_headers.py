"""Workers, dead letters, `orders tail` and the audit tolerate any headers and timestamps."""

import itertools
from datetime import UTC, datetime

import pytest

from ecosystem.clients.dead_letters.dead_letter import DeadLetter, NotADeadLetter
from ecosystem.clients.readable import content, line, moment
from runtime.loop.process import _time
from runtime.model.dead_letters import LOST_UNTIL, dead_letter
from runtime.model.progress import Marks
from runtime.model.records import CONSUMED_BY, EVENT_ID, MADE_AT, NO_TIMESTAMP, Record, Write
from runtime.model.service import Input, Service, Table
from runtime.testing import TopologyTestDriver
from schemas.messages import Order
from schemas.topics import ORDERS, repartition
from tests.samples import NOON, order

SEEN = Table("keeper-seen", Order)
BY_PRODUCT = repartition("keeper", ORDERS, "product", lambda o: o.product)
NULLS = ("null", None), ("twice", b"1"), ("twice", None), (EVENT_ID, None), (CONSUMED_BY, None)
ODD = (*NULLS, ("", b""), ("\n", b"\xff"))


def keeper(topic, times):
    def keep(seen, ctx):
        times.append(ctx.time)
        ctx.put(SEEN, seen.id, seen)

    inputs = [Input(topic, keep)]
    if topic is not ORDERS:
        inputs.append(Input(ORDERS, lambda o, ctx: ctx.send(BY_PRODUCT, o)))
    return Service("keeper", tuple(inputs), () if topic is ORDERS else (BY_PRODUCT,), (SEEN,))


def test_a_message_with_odd_headers_is_processed():
    times = []
    topology = TopologyTestDriver(keeper(ORDERS, times), partitions=1)

    topology.send_raw(ORDERS, b"o1", order("o1").to_json(), *ODD, *[("many", b"")] * 10_000)

    assert topology.row(SEEN, "o1") == order("o1")
    assert topology.records("orders.dead-letters") == []


@pytest.mark.parametrize(
    "made", [None, b"", b"noon", b"\xff", b"1_000", b" 12", b"1.5", b"9" * 30, b"9" * 17, b"-" + b"9" * 17]
)
def test_an_invalid_time_in_a_header_is_dead_lettered_with_the_remedy(made):
    times = []
    topology = TopologyTestDriver(keeper(BY_PRODUCT, times), partitions=1)

    topology.send_raw(BY_PRODUCT, b"JUMPERS", order("o1").to_json(), (MADE_AT, made))
    topology.send_raw(BY_PRODUCT, b"JUMPERS", order("o2").to_json(), (MADE_AT, b"1000"), (MADE_AT, made))

    [letter] = topology.records(f"{BY_PRODUCT.name}.dead-letters")
    error = dict(letter.headers)["error"].decode()
    assert "header made-at" in error
    assert "milliseconds since 1970" in error
    assert letter.headers[0] == (MADE_AT, made)
    assert [t.timestamp() for t in times] == [1.0]  # the first of two counts


@pytest.mark.parametrize(
    ("ms", "time"),
    [
        (NO_TIMESTAMP, NOON),
        (-5, datetime(1969, 12, 31, 23, 59, 59, 995_000, UTC)),
        (1_700_000_000, datetime(1970, 1, 20, 16, 13, 20, tzinfo=UTC)),  # seconds: nobody can tell
        (1_700_000_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (9_400_000_000_000_000, None),
        (-(10**17), None),
        (2**63 - 1, None),
    ],
)
def test_a_message_of_any_timestamp_is_shown_and_an_impossible_one_is_dead_lettered(ms, time):
    record = Record("orders", 0, 5, ms, b"o1", order("o1").to_json())
    said = line(record).plain
    assert said.endswith("0@5")
    assert (f"{ms} ms" in said) == (moment(ms) is None) == (time is None)
    if time is None:
        with pytest.raises(ValueError, match=f"timestamp is {ms}, which is no time"):
            _time(record, ORDERS, NOON)
    else:
        assert _time(record, ORDERS, NOON) == time


def test_null_and_repeated_headers_are_restored_from_a_dead_letter():
    record = Record("orders", 3, 14, 0, b"o1", b"?", ODD)
    write = dead_letter(record, "orders", "no", NOON)

    letter = DeadLetter.of(Record(write.topic, 3, 7, 0, write.key, write.value, write.headers))

    assert letter.headers == ODD
    assert (letter.from_partition, letter.from_offset, letter.error) == (3, 14, "no")
    assert write.size == Write(*write).size


@pytest.mark.parametrize("topic", ["orders", "orders.dead-letters", "elsewhere"])
def test_a_line_shows_odd_headers_and_unreadable_records(topic):
    some = (), ODD, (("service", None), ("error", None))
    for headers, fault in itertools.product(some, (None, "damaged\n\x1b[2J")):
        said = line(Record(topic, 0, 5, 0, b"\xff\n", b"\x00\xff", headers, fault)).plain
        assert said.isprintable()
        assert ("unreadable: damaged" in said) == (fault is not None)


def test_a_dead_letter_with_null_headers_is_foreign():
    headers = [(name, None) for name in ("service", "error", "topic", "partition", "offset", "time")]
    with pytest.raises(NotADeadLetter):
        DeadLetter.of(Record("orders.dead-letters", 0, 5, 0, b"k", b"v", headers))
    with pytest.raises(NotADeadLetter, match="damaged"):
        DeadLetter.of(Record("orders.dead-letters", 0, 5, 0, None, None, ((LOST_UNTIL, b"6"),), "damaged"))


def test_a_null_consumed_by_names_no_service():
    assert Marks().services([("a", b"b"), (CONSUMED_BY, None)]) == {""}
    assert Marks().services([("a", None)]) == frozenset()
    assert content(Record("orders", 0, 5, 0, b"k", None, ODD)) == "(deleted)"
