"""Log ids in committed offsets detect recreated topics, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.model.log_ids import OffsetMetadata, logs_differ, of_last_restore
from runtime.model.records import TopicPartition

IDS = {"payments": "here/P1", "a-changelog": "here/A1", "b-changelog": "here/B1"}
NAMES = st.text("abc-", min_size=1, max_size=12)


def noted(restore=1, ids=IDS):
    return OffsetMetadata.parse(str(OffsetMetadata.of(restore, "payments", ids)))


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
    assert logs_differ(known, now) is expected


@given(st.integers(0, 10**6), st.dictionaries(NAMES, NAMES, max_size=40))
def test_metadata_are_parsed_as_they_were_written(restore, changelogs):
    ids = {"payments": "here/P1", **{name: f"here/{id_}" for name, id_ in changelogs.items()}}
    metadata = OffsetMetadata.of(restore, "payments", ids)
    assert OffsetMetadata.parse(str(metadata)) == metadata
    assert len(str(metadata)) < 1024


@pytest.mark.parametrize(
    "text", ["", "somebody's", "1 x here/P1 ", "2 1 here/P1 ", "1 1 here/P1 AAA", "1 1 here/P1 AAAA", "é"]
)
def test_metadata_that_others_commit_are_ignored(text):
    assert OffsetMetadata.parse(text) is None


def test_unchanged_logs_are_not_recreated():
    assert not noted().recreated("payments", IDS)
    assert noted().recreated_topics(IDS) == set()
    assert not noted().recreated("payments", {}), "a broker that tells no ids"
    assert noted().recreated_topics({}) == set()


def test_an_input_or_a_changelog_that_was_recreated_is_detected():
    assert noted().recreated("payments", IDS | {"payments": "here/P2"})
    assert noted().recreated_topics(IDS | {"payments": "here/P2"}) == {"payments"}
    assert noted().recreated_topics(IDS | {"b-changelog": "here/B2"}) == {"b-changelog"}


def test_a_new_changelog_is_not_a_recreated_one():
    ids = {name: id_ for name, id_ in IDS.items() if name != "b-changelog"}
    assert noted(ids=ids).recreated_topics(IDS) == set()


def test_logs_of_another_cluster_are_not_compared():
    there = {name: id_.replace("here/", "there/") + "x" for name, id_ in IDS.items()}
    assert not noted().recreated("payments", there)
    assert noted().recreated_topics(there) == set()


def test_the_metadata_of_the_last_restore_count():
    tps = [TopicPartition(topic, p) for topic in ("a", "b", "c") for p in range(2)]
    committed = {tp: noted(restore) for tp, restore in zip(tps, (3, 1, 5, 1, 5, 1), strict=True)}
    assert {p: [metadata.restore for metadata in found] for p, found in of_last_restore(committed).items()} == {
        0: [5, 5],
        1: [1, 1, 1],
    }
