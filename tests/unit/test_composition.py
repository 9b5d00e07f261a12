"""A worker finds its group, and its services resume where each message is processed by each of them exactly once."""

import pytest

from runtime.errors import CompositionInUse
from runtime.group.composition import CommittedGroup, RunningGroup, group_to_join, positions_elsewhere
from runtime.model.log_ids import CommittedOffset, OffsetMetadata
from runtime.model.progress import ServiceProgress, marks_of, services_of
from runtime.model.records import TopicPartition

TP, OTHER = TopicPartition("orders", 0), TopicPartition("order-validations", 0)
IDS = {"orders": "here/O1"}


def committed(offset, progress="", ids=IDS):
    return CommittedOffset(offset, str(OffsetMetadata.of(1, "orders", ids, ServiceProgress.parse(progress))))


def running(name, services=None, members=1, *, reports=True):
    return RunningGroup(name, members, services_of(services or name), reports)


def test_a_group_is_named_after_its_services():
    assert services_of("details+fraud") == {"details", "fraud"}
    assert services_of("staging-details+fraud") == {"staging-details", "fraud"}


@pytest.mark.parametrize(
    ("services", "groups", "expected"),
    [
        pytest.param("a b", [], "a+b", id="nobody runs"),
        pytest.param("a b", [running("a+b")], "a+b", id="its own group runs"),
        pytest.param("b a", [running("c")], "a+b", id="only others run"),
        pytest.param("a b c", [running("a+b")], "a+b", id="joins"),
        pytest.param("a b c", [running("a+b", "a+b+c")], "a+b", id="joins after another did"),
        pytest.param("a b", [running("a+b", "a+b+c")], "a+b", id="returns to the services of before"),
        pytest.param("a b d", [running("a+b", "a+b+c")], "a+b", id="another service instead of one that joined"),
        pytest.param("a b c", [running("a+b"), running("d")], "a+b", id="joins beside others"),
        pytest.param("a", [running("a+b")], "a runs already, in group a.b", id="a part of a composition"),
        pytest.param("c", [running("a+b", "a+b+c")], "c runs already, in group a.b", id="it has joined elsewhere"),
        pytest.param("a c", [running("a+b")], "a runs already, in group a.b", id="overlapping"),
        pytest.param("a b", [running("a"), running("b")], "a runs already, in group a .*; b runs", id="two groups"),
        pytest.param("a b c", [running("a+b", members=2, reports=False)], "2 member.* earlier version", id="earlier"),
    ],
)
def test_which_group_a_worker_joins(services, groups, expected):
    if " " in expected:
        with pytest.raises(CompositionInUse, match=expected):
            group_to_join(services.split(), groups)
    else:
        assert group_to_join(services.split(), groups) == expected


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        ("", {"a": 7, "b": 7}),
        ("c", {"a": 7, "b": 7, "c": 7}),
        ("a>9,c", {"a": 9, "b": 7, "c": 7}),
        ("a>6", {"a": 7, "b": 7}),  # passed since
        ("c>9", {"a": 7, "b": 7, "c": 9}),
        ("c=3", {"a": 7, "b": 7, "c": 3}),
        ("c=9", {"a": 7, "b": 7, "c": 9}),
    ],
)
def test_positions_of_services_in_the_metadata_of_an_offset(text, positions):
    progress = ServiceProgress.parse(text)
    assert str(progress) == text
    found = {s: progress.position(s, "a+b", 7) for s in "abcd"}
    assert {s: position for s, position in found.items() if position is not None} == positions
    assert progress.services("a+b") == positions.keys()


@pytest.mark.parametrize("text", ["a>", "a>x", "a b", "a,,b", ">5", "a=-1", "a=9" + "9" * 20])
def test_progress_that_cannot_be_parsed(text):
    with pytest.raises(ValueError, match="no progress"):
        ServiceProgress.parse(text)


def test_marks_name_the_services_that_joined():
    assert marks_of("a+b", ()) == (("consumed-by", b"a+b"),)
    assert marks_of("a+b", {"d", "c"}) == (("consumed-by", b"a+b"), ("also-consumed-by", b"c+d"))


def test_a_service_is_where_the_furthest_of_its_groups_is():
    groups = [
        CommittedGroup("a+b", {TP: committed(7, "e>8,f=3")}),
        CommittedGroup("a", {TP: CommittedOffset(9, "")}),
        CommittedGroup("c", {TP: committed(20), OTHER: committed(1)}),
        CommittedGroup("ab", {TP: committed(30)}),
        CommittedGroup("d", {TP: committed(50, ids={"orders": "here/O0"})}),  # of a log that was made anew
        CommittedGroup("f", {TP: CommittedOffset(2, "somebody's")}),
    ]
    own = CommittedGroup("a+b+c+d+e+f", {TP: committed(8)})
    readers = {TP: set("abcdef"), OTHER: {"a", "c"}}
    elsewhere = positions_elsewhere(own, groups, readers, {TP: 60, OTHER: 5}, IDS)
    assert elsewhere == {TP: {"a": 9, "c": 20}, OTHER: {"c": 1}}
    elsewhere = positions_elsewhere(CommittedGroup(own.name, {}), groups, readers, {TP: 60, OTHER: 5}, IDS)
    assert elsewhere == {TP: {"a": 9, "b": 7, "c": 20, "e": 8, "f": 3}, OTHER: {"c": 1}}


def test_offsets_beyond_the_end_count_only_until_the_own_group_has_read_the_log():
    others = [CommittedGroup("a", {TP: committed(50)})]
    for own, expected in (({}, {TP: {"a": 50}}), ({TP: committed(3)}, {})):
        assert positions_elsewhere(CommittedGroup("a+b", own), others, {TP: {"a"}}, {TP: 10}, IDS) == expected
