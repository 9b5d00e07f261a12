"""A new composition resumes where each message is processed by each service exactly once."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import NoCommonOffset
from runtime.group.composition import (
    CommittedGroup,
    ResumePoint,
    lowest_position,
    processed_until,
    services_of,
    superseded,
)
from runtime.model.records import TopicPartition

TP, OTHER = TopicPartition("orders", 0), TopicPartition("order-validations", 0)


def test_a_group_is_named_after_its_services():
    assert services_of("details+fraud") == {"details", "fraud"}
    assert services_of("staging-details+fraud") == {"staging-details", "fraud"}


def test_a_service_is_where_the_furthest_of_its_groups_is():
    groups = [
        CommittedGroup("a+b", {TP: 7}),
        CommittedGroup("a", {TP: 9, OTHER: 3}),
        CommittedGroup("c", {TP: 20}),
        CommittedGroup("ab", {TP: 30}),
    ]
    assert [processed_until(s, TP, groups) for s in "abcd"] == [9, 7, 20, 0]
    assert processed_until("b", OTHER, groups) == 0


def test_who_has_never_begun_is_not_behind():
    groups = [
        CommittedGroup("a+b", {TP: 7}),
        CommittedGroup("a", {TP: 9}),
        CommittedGroup("d", {TP: 0}),
        CommittedGroup("e", {OTHER: 5}),
    ]
    assert lowest_position("abe", TP, groups) == 7
    assert lowest_position("ae", TP, groups) == 9
    assert lowest_position("ad", TP, groups) == 0, "it has committed that it begins at the beginning"
    assert lowest_position("e", TP, groups) is None


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        ({TP: 5}, {TP: 4}, True),
        ({TP: 5}, {TP: 5}, False),  # timers may have fired since
        ({TP: 5}, {TP: 6}, False),
        ({TP: 5, OTHER: 5}, {TP: 5, OTHER: 4}, True),
        ({TP: 6, OTHER: 5}, {TP: 5, OTHER: 6}, False),
        ({TP: 6}, {TP: 5, OTHER: 1}, False),
        ({TP: 5, OTHER: 1}, {TP: 5}, True),
        ({}, {TP: 1}, False),
        ({}, {}, False),
    ],
)
def test_a_group_that_is_ahead_somewhere_and_behind_nowhere_has_taken_over_already(own, other, expected):
    readers = {TP: {"a", "b"}, OTHER: {"a"}}
    assert superseded(CommittedGroup("a", other), CommittedGroup("a+b", own), readers) is expected


def test_only_what_both_decide_is_compared():
    readers = {TP: {"a", "b"}, OTHER: {"a"}}
    assert superseded(CommittedGroup("b", {TP: 5}), CommittedGroup("a+b", {TP: 5, OTHER: 9}), readers) is False


def resume_offset(group, positions, *tail, end=10):
    """Where the group resumes; `tail` has each message's offset, alone or with its `consumed-by`."""
    found = ResumePoint(group, positions, end)
    for message in tail:
        found.observe(*(message if isinstance(message, tuple) else (message, None)))
    return found.offset


@pytest.mark.parametrize(
    ("group", "positions", "tail", "expected"),
    [
        pytest.param("a", {"a": 10}, [], 10, id="drained"),
        pytest.param("a", {"a": 8}, [], 10, id="only markers behind it"),
        pytest.param("a", {"a": 5}, [7], 7, id="a backlog"),
        pytest.param(
            "a", {"a": 5}, [(5, "a+b"), (6, "a+b")], 10, id="processed by the old group before it was stopped"
        ),
        pytest.param("a", {"a": 5}, [(5, "a+b"), 7], 7, id="then posted"),
        pytest.param(
            "a", {"a": 5}, [(5, "b"), (6, "a+b"), 7], NoCommonOffset, id="marked by others, hence unprocessed"
        ),
        pytest.param("a", {"a": 5}, [(5, "b"), 7], 5, id="marked by others only"),
        pytest.param("a", {"a": 5}, [5, (6, "a+b")], NoCommonOffset, id="stopped between"),
        pytest.param("a", {"a": 5}, [5, (6, "a"), 7], 5, id="its own marks are passed over"),
        pytest.param("a", {"a": 5}, [5, (11, "a+b")], 5, id="what came later is not looked at"),
        pytest.param("a+b", {"a": 10, "b": 10}, [], 10, id="merged, drained"),
        pytest.param("a+b", {"a": 7, "b": 9}, [], 10, id="merged, markers between"),
        pytest.param("a+b", {"a": 7, "b": 9}, [9], 9, id="merged, markers between, then a backlog"),
        pytest.param("a+b", {"a": 7, "b": 9}, [8], NoCommonOffset, id="merged, one is behind"),
        pytest.param("a+b", {"a": 7, "b": 9}, [(8, "a")], 10, id="merged, one is not behind what it marked"),
        pytest.param(
            "a+b", {"a": 9, "b": 9}, [(9, "a")], NoCommonOffset, id="merged, one has to process what the other marked"
        ),
        pytest.param("a+b", {"a": 0, "b": 9}, [0], NoCommonOffset, id="one never ran"),
    ],
)
def test_where_a_group_resumes(group, positions, tail, expected):
    if expected is NoCommonOffset:
        with pytest.raises(NoCommonOffset):
            resume_offset(group, positions, *tail)
    else:
        assert resume_offset(group, positions, *tail) == expected


@pytest.mark.parametrize(
    ("positions", "tail", "first"),
    [
        ({"a": 7, "b": 9, "c": 7}, [8], "a+c"),
        ({"a": 5, "b": 5, "c": 5}, [5, (6, "a+b+c+d")], "a+b+c+d"),
    ],
)
def test_a_group_that_cannot_resume_is_told_which_one_has_to_run_first(positions, tail, first):
    with pytest.raises(NoCommonOffset, match=r"offset [58] is still to be processed by a") as error:
        resume_offset("a+b+c", positions, *tail)
    assert error.value.first == first


SERVICES = "abc"
COMPOSITIONS = ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]


class Log:
    """One partition, processed by one composition after another: each reads, marks, commits, and stops anywhere."""

    def __init__(self):
        self.marks = []  # of each offset: the group that marked it, None, or "marker"
        self.committed = {}
        self.processed = Counter()

    def groups(self, *names):
        return [
            CommittedGroup(n, {TP: self.committed[n]} if n in self.committed else {}) for n in names or self.committed
        ]

    def start(self, name):
        """Migrates offsets as a worker does. Raises `NoCommonOffset`."""
        (own,) = self.groups(name)
        readers = {TP: services_of(name)}
        others = [g for g in self.groups() if g.name != name and g.services & own.services]
        others = [g for g in others if not superseded(g, own, readers)]
        if others:
            positions = {s: processed_until(s, TP, [own, *others]) for s in services_of(name)}
            found = ResumePoint(name, positions, len(self.marks))
            for offset in range(found.start, len(self.marks)):
                if self.marks[offset] != "marker":
                    found.observe(offset, self.marks[offset])
            before = own.committed.get(TP, 0)
            assert found.offset >= before
            if found.offset > before:
                self.committed[name] = found.offset

    def mark(self, name, count):
        """Processes messages that it produces when a timer fires, in the same batch: no offset moves."""
        for _ in range(count if name in self.committed else 0):  # who never read anything has no timers
            self.processed.update((s, len(self.marks)) for s in services_of(name))
            self.marks.append(name)
        self.marks.append("marker")

    def read(self, name, limit):
        """Processes up to `limit` waiting messages; all of them if it is negative."""
        while limit and self.committed.get(name, 0) < len(self.marks):
            offset = self.committed.get(name, 0)
            self.committed[name] = offset + 1
            if self.marks[offset] not in {name, "marker"}:
                self.processed.update((s, offset) for s in services_of(name))
                limit -= 1

    def drain(self, name):
        """Starts it, after the compositions that have to run first."""
        for _ in range(2 * len(COMPOSITIONS)):
            first = name
            for _ in COMPOSITIONS:
                try:
                    self.start(first)
                    break
                except NoCommonOffset as error:
                    first = error.first
            else:
                break
            self.read(first, -1)
            if first == name:
                return
        pytest.fail(f"{name} never gets to start")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(COMPOSITIONS),
            st.lists(st.tuples(st.sampled_from(["post", "read", "mark"]), st.integers(0, 3)), max_size=5),
        ),
        max_size=12,
    ),
    st.permutations(["a", "b", "c", "a+b+c"]),
)
def test_in_any_order_of_compositions_each_service_processes_each_message_once(runs, last):
    log = Log()
    for name, steps in runs:
        try:
            log.start(name)
        except NoCommonOffset:
            continue
        for step, count in steps:
            if step == "post":
                log.marks += [None] * count
            elif step == "read":
                log.read(name, count)
            else:
                log.mark(name, count)
    for name in last:
        log.drain(name)
    messages = [offset for offset, mark in enumerate(log.marks) if mark != "marker"]
    assert log.processed == Counter((s, offset) for s in SERVICES for offset in messages)
