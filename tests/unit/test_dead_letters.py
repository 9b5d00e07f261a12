"""Dead letters are selected by filters, counted by kind of cause, and quarantined when redrives do not help."""

import io
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ecosystem.cli.dead_letter_text import DeadLetterText, print_summary
from ecosystem.clients.dead_letters.dead_letter import DeadLetter, DeadLetterId
from ecosystem.clients.dead_letters.filters import Filters
from ecosystem.clients.dead_letters.records import RedriveNote
from ecosystem.clients.dead_letters.redrives import Redrives
from ecosystem.clients.dead_letters.summary import Summary
from runtime.model.causes import kind_of_cause
from runtime.model.dead_letters import dead_letter
from runtime.model.records import NO_OFFSET, Record

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def letter(
    at=0,
    *,
    key=b"order-7",
    value=b"{",
    headers=(),
    service="orders",
    error="no JSON",
    offset=3,
    topic="orders",
    time=NOON,
):
    """A dead letter at an offset of partition 1, as it is read from its topic."""
    record = Record(topic, 1, offset, 0, key, value, headers)
    write = dead_letter(record, service, error, time)
    ms = int(time.timestamp() * 1000)
    return DeadLetter.of(Record(write.topic, write.partition, at, ms, write.key, write.value, write.headers))


def note(partition=1, offset=9):
    return RedriveNote(partition=partition, offset=offset, at=NOON)


def redrives(*letters, noted=()):
    found = Redrives({one.id: note() for one in noted})
    for one in (*letters, *noted):
        found.add(one)
    return found


FITTING = {
    "nothing": (Filters(), {}),
    "service": (Filters(service="fraud"), {"service": "fraud"}),
    "one of the services": (Filters(service="fraud"), {"service": "orders,fraud"}),
    "cause in other case": (Filters(cause="QUANTITY is"), {"error": "DecodeError: quantity is missing"}),
    "part of the key": (Filters(key="er-7"), {}),
    "part of a key of bytes": (Filters(key="ff 01"), {"key": b"\xff\x01"}),
    "since then": (Filters(since=NOON), {}),
    "before later": (Filters(before=NOON + timedelta(milliseconds=1)), {}),
    "all of them": (Filters("orders", "json", "7", NOON, NOON + timedelta(hours=1), redriven=False), {}),
}
UNFIT = {
    "another service": (Filters(service="fraud"), {}),
    "part of a service": (Filters(service="order"), {}),
    "another cause": (Filters(cause="missing"), {}),
    "another key": (Filters(key="8"), {}),
    "the key in other case": (Filters(key="ORDER"), {}),
    "no key": (Filters(key="none"), {"key": None}),
    "later": (Filters(since=NOON + timedelta(milliseconds=1)), {}),
    "not before": (Filters(before=NOON), {}),
    "one filter of several": (Filters(service="orders", key="8"), {}),
}


@pytest.mark.parametrize("name", FITTING)
def test_a_dead_letter_that_all_filters_fit_is_selected(name):
    filters, content = FITTING[name]
    assert filters.fits_redrives(letter(**content), redrives())


@pytest.mark.parametrize("name", UNFIT)
def test_a_dead_letter_that_one_filter_does_not_fit_is_left_out(name):
    filters, content = UNFIT[name]
    assert not filters.fits_redrives(letter(**content), redrives())


def test_dead_letters_are_selected_by_whether_they_were_written_back():
    written, waiting = letter(0, offset=3), letter(1, offset=4)
    of_the_same_record = letter(2, offset=3, service="fraud")
    known = redrives(noted=[written])

    for redriven in (True, False):
        filters = Filters(redriven=redriven)
        fitting = [one for one in (written, waiting, of_the_same_record) if filters.fits_redrives(one, known)]
        assert fitting == ([written, of_the_same_record] if redriven else [waiting])


WORDS = st.text("abcdefghij", min_size=1, max_size=8)
VALUES = st.one_of(
    st.integers().map(str),
    st.floats(0, 1e9, allow_nan=False).map(lambda x: f"{x:.3f}"),
    st.uuids(version=4).map(str),
    st.datetimes().map(datetime.isoformat),
    st.builds("{}-{}".format, WORDS, st.integers(0, 10**9)),
    st.builds("{}/{}/{}".format, WORDS, st.integers(0, 99), st.integers(0, 10**9)),
    st.builds("{}@{}".format, st.integers(0, 99), st.integers(0, 10**9)),
)
QUOTED = st.text(st.characters(exclude_characters="\n")).map(repr).filter(lambda text: text[0] == "'")
SLOTS = st.sampled_from(["value", "quoted"])


@given(st.data(), st.lists(st.tuples(WORDS, SLOTS), min_size=1, max_size=5), WORDS)
def test_errors_that_differ_in_values_alone_are_of_one_kind(data, slots, last):
    def error():
        of = {"value": VALUES, "quoted": QUOTED}
        return " ".join(f"{word} {data.draw(of[slot])}:" for word, slot in slots) + f" {last}"

    first, second = error(), error()
    assert kind_of_cause(first) == kind_of_cause(second)
    for word in (*(word for word, _ in slots), last):
        assert word in kind_of_cause(first).replace(":", "").split()


@given(st.lists(WORDS, min_size=1, max_size=6), st.lists(WORDS, min_size=1, max_size=6))
def test_errors_of_other_words_are_of_other_kinds(one, other):
    assert (kind_of_cause(" ".join(one)) == kind_of_cause(" ".join(other))) is (one == other)


@given(st.text())
def test_the_kind_of_a_kind_is_itself(error):
    assert kind_of_cause(kind_of_cause(error)) == kind_of_cause(error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("key 'O'Brien' belongs in partition 3", "key '…' belongs in partition …"),
        ("the record isn't JSON, and can't be", "the record isn't JSON, and can't be"),
        ("value b'\\xff\\'' is not UTF-8", "value '…' is not UTF-8"),
        ('checkType "a\'b" is unknown', 'checkType "…" is unknown'),
        ("reason 'cut off in the mid", "reason '…'"),
        (f"order {uuid.UUID(int=7)} is\nunknown", "order … is unknown"),
    ],
)
def test_the_kind_of_a_cause(error, kind):
    assert kind_of_cause(error) == kind


@pytest.mark.parametrize("mark", ["'", '"', "\\", "'\\", "\\'", "1-", "a1."])
def test_the_kind_of_a_long_error_takes_no_time(mark):
    """An expression that tries many readings of the same text would not end."""
    assert kind_of_cause("x " + "'" + mark * 500 + "x")


def test_dead_letters_are_counted_by_topic_service_and_kind_of_cause():
    first = letter(0, error="key 'a' is in 1", offset=1)
    written = letter(1, error="key 'b' is in 2", offset=2, time=NOON - timedelta(hours=1))
    poison = letter(2, error="key 'c' is in 3", offset=3, time=NOON + timedelta(hours=1), headers=(("redriven", b"3"),))
    counts = Summary(redrives(noted=[written]), max_redrives=3)
    for one in (first, written, poison, letter(3, service="fraud"), letter(4, topic="customers")):
        counts.add(one)

    assert [(g.topic, g.service, g.cause, g.count) for g in counts.groups] == [
        ("customers", "orders", "no JSON", 1),
        ("orders", "orders", "key '…' is in …", 3),
        ("orders", "fraud", "no JSON", 1),
    ]
    largest = counts.groups[1]
    assert (largest.redriven, largest.quarantined, largest.example) == (1, 1, poison.id)
    assert largest.last_ms - largest.first_ms == 2 * 3600 * 1000


COUNTERS = {
    "never": ((), 0),
    "twice": ((("redriven", b"2"),), 2),
    "behind others": ((("trace", b"1"), ("redriven", b"12")), 12),
    "header of the producer": ((("redriven", b"2"), ("trace", b"1")), 0),
    "no number": ((("redriven", b"yes"),), 0),
    "null": ((("redriven", None),), 0),
    "too long": ((("redriven", b"1" * 5000),), 0),
}


@pytest.mark.parametrize("name", COUNTERS)
def test_the_last_header_counts_redrives_and_the_others_stay(name):
    headers, count = COUNTERS[name]
    found = letter(headers=headers)

    assert found.redriven == count
    own = headers[:-1] if count else headers
    assert found.headers == headers
    assert found.redriven_headers(count + 1) == (*own, ("redriven", str(count + 1).encode()))


@given(st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=4), st.integers(1, 9))
def test_a_message_that_fails_after_each_redrive_counts_them(headers, times):
    own = tuple(h for h in headers if h[0] != "redriven")
    found = letter(headers=own)
    for _ in range(times):
        found = letter(headers=found.redriven_headers(redrives().count(found) + 1))

    assert found.redriven == times
    assert found.headers == (*own, ("redriven", str(times).encode()))


def test_a_message_is_quarantined_after_so_many_redrives_until_it_is_written_back():
    for count in range(6):
        one = letter(headers=(("redriven", str(count).encode()),))
        assert redrives().quarantined(one, 3) is (count >= 3)
        assert not redrives(noted=[one]).quarantined(one, 3)


def test_redrives_of_a_side_effect_are_counted_by_its_earlier_dead_letters():
    """It fails long after its message was processed: its dead letter has no headers of a message."""
    chain = [letter(n, topic="email-effects", offset=NO_OFFSET, key=b"o1", value=b"{}") for n in range(4)]
    other = letter(9, topic="email-effects", offset=NO_OFFSET, key=b"o2", value=b"{}")
    known = redrives(noted=chain[:3])

    assert [known.count(one) for one in (*chain, other)] == [0, 1, 2, 3, 0]
    assert known.quarantined(chain[3], 3)
    assert [known.note(one) is None for one in chain] == [False, False, False, True]
    assert known.has_note(DeadLetterId("email-effects", 1, 2))


def test_a_summary_says_the_cause_on_any_width():
    """A terminal of 80 columns, and a service that is a list of seven."""
    services = "orders,details,email,fraud,fulfilment,inventory,webhooks"
    cause = "customerId is missing: add it; write the JSON that `orders asyncapi` shows for orders"
    known = letter(7, service=services, error=cause)
    summary = Summary(redrives(known), 3)
    summary.add(known)
    output = io.StringIO()
    print_summary(Console(width=80, file=output, highlight=False), summary.groups)
    said = output.getvalue()
    assert cause in said
    assert f"{services}  2026-07-01 12:00:00 to 2026-07-01 12:00:00  such as 1@7" in said


def test_a_dead_letter_that_was_never_redriven_says_nothing_of_redrives():
    known = letter(7)
    assert [line for line in DeadLetterText(redrives(known), 3).lines(known) if line.startswith("redriven")] == []
