"""Services resume in a partition where they stopped, or start, and process each message exactly once."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.data_loss.losses import LossCause
from runtime.errors import CompositionInUse
from runtime.group.composition import CommittedGroup, RunningGroup, group_to_join, positions_elsewhere
from runtime.model.log_ids import CommittedOffset, OffsetMetadata
from runtime.model.progress import Marks, ServiceProgress, marks_of, services_of
from runtime.model.records import TopicPartition
from runtime.model.service import Input, Service, Start
from runtime.model.topology import Topology
from runtime.state.resume import Inputs, committed_positions, resume_point
from schemas.topics import ORDERS

TP = TopicPartition(ORDERS.name, 0)


@pytest.mark.parametrize(
    ("committed", "elsewhere", "now", "expected"),
    [
        pytest.param({"a": None}, {}, "", (2, {}, False), id="never read"),
        pytest.param({"a": None}, {}, "a", (9, {}, True), id="never read, from now on"),
        pytest.param({"a": 5, "b": 5}, {}, "", (5, {}, False), id="where it stopped"),
        pytest.param({"a": 5, "b": 7}, {}, "", (5, {"b": 7}, False), id="one is ahead"),
        pytest.param({"a": 5, "b": None}, {}, "b", (5, {}, True), id="joins from now on"),
        pytest.param({"a": 5, "b": 7, "c": None}, {}, "c", (5, {"b": 7}, True), id="joins where the last one is"),
        pytest.param({"a": 5, "b": None}, {}, "", (2, {"a": 5}, True), id="joins at the beginning"),
        pytest.param({"a": 5, "b": None, "c": None}, {}, "c", (2, {"a": 5, "c": 5}, True), id="one of each"),
        pytest.param({"a": 5, "b": 5}, {}, "b", (5, {}, False), id="from now on is for once"),
        pytest.param({"a": None, "b": None}, {}, "b", (2, {}, True), id="all are new: where the others start"),
        pytest.param({"a": None}, {"a": 6}, "a", (6, {}, True), id="continues from another group"),
        pytest.param({"a": 5, "b": 5}, {"a": 6}, "", (5, {"a": 6}, True), id="one was in another group since"),
        pytest.param({"a": 5, "b": 5}, {"a": 5}, "", (5, {}, False), id="no further in the other group"),
        pytest.param({"a": 9, "b": None}, {"b": 4}, "", (4, {"a": 9}, True), id="apart before, then joins"),
    ],
)
def test_where_a_partition_is_read_from(committed, elsewhere, now, expected):
    found = resume_point(committed, elsewhere, now.__contains__, start=2, end=9)
    assert (found.offset, found.ahead, found.is_new) == expected
    assert found.lost is None


@pytest.mark.parametrize(
    ("committed", "options", "offset", "ahead", "lost"),
    [
        pytest.param({"a": 0, "b": 5}, {}, 2, {"b": 5}, (0, 2, LossCause.REMOVED), id="the one behind misses some"),
        pytest.param({"a": 4, "b": 12}, {}, 2, {"a": 4}, (9, 12, LossCause.CUT_OFF), id="the one ahead was cut off"),
        pytest.param({"a": 4, "b": 6}, {"recreated": True}, 2, {}, (0, 4, LossCause.RECREATED), id="recreated"),
        pytest.param({"a": None}, {"with_state": "b"}, 9, {}, None, id="a service that never read has lost nothing"),
        pytest.param({"a": None}, {"with_state": "a"}, 2, {}, (0, 2, LossCause.OFFSETS_GONE), id="offsets expired"),
    ],
)
def test_lost_records_are_found_whoever_misses_them(committed, options, offset, ahead, lost):
    found = resume_point(committed, {}, "a".__contains__, start=2, end=9, **options)
    assert (found.offset, found.ahead, found.lost) == (offset, ahead, lost)


def test_a_worker_keeps_the_positions_of_services_that_it_does_not_run():
    inputs = Inputs(Topology((service("a"),), group="a"))
    progress = ServiceProgress.parse("b,c>9,d=3")
    assert str(inputs.progress(ORDERS.name, {}, progress, 5)) == "b=5,c=9,d=3"
    assert str(inputs.progress(ORDERS.name, {}, progress, None)) == "", "of another log"
    joined = Inputs(Topology((service("a"), service("b")), group="a"))
    assert str(joined.progress(ORDERS.name, {"a": 9}, ServiceProgress(), 5)) == "a>9,b"


def service(name, start=Start.BEGINNING):
    return Service(name, (Input(ORDERS, print, start=start),), ())


SERVICES = "abcd"
NOW = "d"
"""Starts from now on; the others start at the beginning."""


class Worker:
    """A member of a group."""

    def __init__(self, topology, elsewhere):
        self.topology = topology
        self.elsewhere = elsewhere
        self.ahead = {}
        self.position = 0
        self.metadata = ""


class Log:
    """One partition, processed by groups one after the other; one member of a group owns the partition."""

    def __init__(self):
        self.messages = []
        """Headers of each message."""
        self.committed = {}
        """Committed offset by group."""
        self.processed = Counter()
        self.first = {}
        """Where a service that starts from now on was to start."""
        self.marks = Marks()
        self.workers = []
        self.owner = None

    def start(self, services):
        """Starts a worker. Raises `CompositionInUse`."""
        topology = Topology(tuple(service(s, Start.NOW if s in NOW else Start.BEGINNING) for s in services))
        members = {w.topology.group: [v.topology for v in self.workers] for w in self.workers}
        running = [
            RunningGroup(name, len(found), frozenset(s.name for t in found for s in t.services))
            for name, found in members.items()
        ]
        name = group_to_join(services, running)
        groups = [CommittedGroup(g, {TP: commit}) for g, commit in self.committed.items()]
        own = next((g for g in groups if g.name == name), CommittedGroup(name, {}))
        others = [g for g in groups if g is not own]
        elsewhere = positions_elsewhere(own, others, {TP: set(services)}, {TP: len(self.messages)}, {})
        worker = Worker(topology.in_group(name), elsewhere)
        self.workers.append(worker)
        return worker

    def own(self, worker):
        """Moves the partition to a worker of a group, which restores it."""
        group = worker.topology.group
        commit = self.committed.get(group)
        metadata = OffsetMetadata.parse(commit.metadata) if commit else None
        progress, offset = metadata.progress if metadata else ServiceProgress(), commit.offset if commit else None
        inputs = Inputs(worker.topology, worker.elsewhere)
        readers = inputs.readers(ORDERS.name)
        found = resume_point(
            committed_positions(readers, group, offset, progress),
            worker.elsewhere.get(TP, {}),
            lambda s: inputs.starts_now(s, ORDERS.name),
            0,
            len(self.messages),
        )
        worker.position, worker.ahead = found.offset, found.ahead
        now = inputs.progress(ORDERS.name, found.ahead, progress, offset)
        worker.metadata = str(OffsetMetadata.of(1, ORDERS.name, {}, now))
        if NOW in readers and NOW not in self.first:
            self.first[NOW] = max(found.offset, found.ahead.get(NOW, 0))
        if found.is_new:
            self._commit(worker)

    def read(self, worker, limit):
        """Processes up to `limit` waiting messages; all of them if it is negative."""
        readers = worker.topology.readers[ORDERS.name]
        while limit and worker.position < len(self.messages):
            offset = worker.position
            worker.position += 1
            done = self.marks.services(self.messages[offset])
            done |= {s for s, position in worker.ahead.items() if offset < position}
            if readers - done:
                self.processed.update((s, offset) for s in readers - done)
                limit -= 1
        self._commit(worker)

    def fuse(self, worker, count):
        """Processes messages in the batch that produces them, which is allowed once the backlog is processed."""
        for _ in range(count if worker.position == len(self.messages) else 0):
            readers = worker.topology.readers[ORDERS.name]
            self.processed.update((s, len(self.messages)) for s in readers)
            marks = marks_of(worker.topology.group, worker.topology.joined_readers(ORDERS.name))
            self.messages.append(marks)
            self._commit(worker)

    def _commit(self, worker):
        self.committed[worker.topology.group] = CommittedOffset(worker.position, worker.metadata)

    def stop(self):
        self.workers, self.owner = [], None


COMPOSITIONS = ["a", "ab", "ab", "abc", "abd", "abcd", "abcd", "d", "c", "cd"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("post"), st.integers(1, 3)),
        st.tuples(st.just("read"), st.integers(0, 3)),
        st.tuples(st.just("fuse"), st.integers(1, 2)),
        st.tuples(st.just("own"), st.integers(0, 3)),
        st.tuples(st.just("start"), st.sampled_from(COMPOSITIONS)),
        st.tuples(st.just("leave"), st.integers(0, 3)),
        st.tuples(st.just("stop"), st.none()),
    ),
    min_size=8,
    max_size=40,
)


@settings(max_examples=400, deadline=None)
@given(STEPS, st.permutations(["a", "b", "c", "d", "abcd"]))
def test_each_service_processes_each_message_once_however_services_join_leave_and_move(steps, last):
    """Workers of one group at a time own the partition; others of it come and go, as in a rolling restart."""
    log = Log()
    for step, argument in steps:
        owner = log.owner
        if step == "post":
            log.messages += [()] * argument
        elif step == "stop":
            log.stop()
        elif step == "start":
            try:
                worker = log.start(argument)
            except CompositionInUse:  # another composition runs
                continue
            if owner is None or worker.topology.group == owner.topology.group:
                log.owner = worker
                log.own(worker)
            else:  # a group of other services: the log follows one group
                log.workers.remove(worker)
        elif step == "own" and log.workers:
            log.owner = log.workers[argument % len(log.workers)]
            log.own(log.owner)
        elif step == "leave" and len(log.workers) > 1:
            log.workers.pop(argument % len(log.workers))
            if log.owner not in log.workers:
                log.owner = log.workers[0]
                log.own(log.owner)
        elif owner is not None and step in {"read", "fuse"}:
            getattr(log, step)(owner, argument)
    for services in last:
        log.stop()
        worker = log.start(list(services))
        log.own(worker)
        log.read(worker, -1)
    expected = {(s, n) for s in SERVICES for n in range(log.first.get(s, 0), len(log.messages))}
    assert log.processed == Counter(expected)


def test_a_group_named_after_its_services_needs_no_metadata():
    """So offsets of earlier versions are read, and theirs reads ours."""
    inputs = Inputs(Topology((service("a"), service("b"))))
    assert inputs.progress(ORDERS.name, {}, ServiceProgress(), 5) == ServiceProgress()
    assert services_of(inputs.group) == {"a", "b"}
