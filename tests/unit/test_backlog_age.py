"""Ages of unprocessed records, by offsets and by timestamps."""

import pytest

from runtime.health.backlog_age import BacklogAges
from runtime.model.end_samples import MOST_SAMPLES
from runtime.model.records import TopicPartition

TP = TopicPartition("orders", 0)


def ages(*samples, read_ms=0):
    """The age after the last of these samples: time, position, end."""
    found = BacklogAges()
    for now, position, end in samples:
        result = found.observe(now, {TP: position}, {TP: end}, {TP: read_ms})
    return result.get(TP)


@pytest.mark.parametrize(
    ("samples", "read_ms", "expected"),
    [
        ([(100, 5, 5)], 0, None),
        ([(100, 5, 5), (105, 5, 9)], 0, 5),
        ([(100, 5, 5), (105, 5, 9), (110, 5, 9), (115, 5, 12)], 0, 15),
        ([(100, 5, 5), (105, 5, 9), (110, 9, 12)], 0, 5),
        ([(100, 5, 5), (105, 5, 9), (110, 8, 12)], 0, 10),
        ([(100, 5, 5), (105, 5, 9), (110, 9, 9)], 0, None),
        ([(100, 5, 9)], 0, 0),
        ([(100, 5, 9), (160, 5, 9)], 0, 60),
        ([(100, 5, 9), (160, 5, 10)], 0, 60),
        ([(1000, 5, 9)], 400_000, 600),
        ([(1000, 5, 5), (1005, 5, 9)], 400_000, 5),
        ([(1000, 5, 5), (1010, 7, 9)], 1_009_500, 0.5),
        ([(1000, 5, 9)], 1_060_000, 0),
        ([(100, 50, 60), (105, 0, 3)], 0, 0),
    ],
    ids=[
        "nothing waits",
        "since the last sample without a backlog",
        "the age grows while nothing is processed",
        "what came by the second sample is processed",
        "one record of it is not",
        "caught up",
        "the first sample shows a backlog, of unknown age",
        "the same one is still there: since it was seen",
        "more has come since",
        "the record before was written long ago",
        "it was, but the topic was idle since",
        "the timestamp is the better bound",
        "a producer's clock is ahead",
        "the topic was created anew",
    ],
)
def test_age(samples, read_ms, expected):
    assert ages(*samples, read_ms=read_ms) == expected


def test_a_partition_without_an_answer_of_its_leader_has_no_age():
    assert BacklogAges().observe(100, {TP: 5}, {}, {}) == {}


def test_samples_of_a_partition_that_does_not_advance_are_bounded():
    found = BacklogAges()
    for second in range(10 * MOST_SAMPLES):
        result = found.observe(second, {TP: 0}, {TP: second}, {})
    assert result[TP] == second
    [samples] = found._ends.values()
    assert len(samples) <= MOST_SAMPLES
    half = second // 2
    assert found.observe(second + 1, {TP: half}, {TP: second}, {})[TP] == pytest.approx(half, rel=0.05)
    assert found.observe(second + 2, {}, {}, {}) == {}
    assert not found._ends
