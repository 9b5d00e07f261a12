"""Of which logs a committed offset is: what was made anew is told from what was read, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.model.log_ids import Note, differ, latest
from runtime.model.records import TopicPartition

IDS = {"payments": "here/P1", "a-changelog": "here/A1", "b-changelog": "here/B1"}
NAMES = st.text("abc-", min_size=1, max_size=12)


def noted(turn=1, ids=IDS):
    return Note.read(str(Note.of(turn, "payments", ids)))


@pytest.mark.parametrize(
    ("known", "now", "expected"),
    [
        (None, None, False),
        (None, "here/A", False),
        ("here/A", None, False),
        ("here/A", "here/A", False),
        ("here/A", "here/B", True),
        ("here/A", "there/B", False),  # copied there, by MirrorMaker say
    ],
)
def test_logs_of_one_cluster_are_compared(known, now, expected):
    assert differ(known, now) is expected


@given(st.integers(0, 10**6), st.dictionaries(NAMES, NAMES, max_size=40))
def test_a_note_is_read_as_it_was_written(turn, changelogs):
    ids = {"payments": "here/P1", **{name: f"here/{id_}" for name, id_ in changelogs.items()}}
    note = Note.of(turn, "payments", ids)
    assert Note.read(str(note)) == note
    assert len(str(note)) < 1024


@pytest.mark.parametrize(
    "text", ["", "somebody's", "1 x here/P1 ", "2 1 here/P1 ", "1 1 here/P1 AAA", "1 1 here/P1 AAAA", "é"]
)
def test_what_others_write_into_a_commit_is_no_note(text):
    assert Note.read(text) is None


def test_what_is_as_it_was_is_not_anew():
    assert not noted().anew("payments", IDS)
    assert noted().made_anew(IDS) == set()
    assert not noted().anew("payments", {}), "a broker that tells no ids"
    assert noted().made_anew({}) == set()


def test_an_input_or_a_changelog_that_was_made_anew_is_found():
    assert noted().anew("payments", IDS | {"payments": "here/P2"})
    assert noted().made_anew(IDS | {"payments": "here/P2"}) == {"payments"}
    assert noted().made_anew(IDS | {"b-changelog": "here/B2"}) == {"b-changelog"}


def test_a_changelog_that_came_later_is_nothing_that_was_lost():
    ids = {name: id_ for name, id_ in IDS.items() if name != "b-changelog"}
    assert noted(ids=ids).made_anew(IDS) == set()


def test_of_another_cluster_nothing_is_known():
    there = {name: id_.replace("here/", "there/") + "x" for name, id_ in IDS.items()}
    assert not noted().anew("payments", there)
    assert noted().made_anew(there) == set()


def test_the_notes_of_the_last_takeover_count():
    tps = [TopicPartition(topic, p) for topic in ("a", "b", "c") for p in range(2)]
    notes = {tp: noted(turn) for tp, turn in zip(tps, (3, 1, 5, 1, 5, 1), strict=True)}
    assert {p: [note.turn for note in found] for p, found in latest(notes).items()} == {0: [5, 5], 1: [1, 1, 1]}
