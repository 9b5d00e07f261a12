"""Positions of services, and the lag that follows from them."""

import dataclasses
from types import SimpleNamespace

from ecosystem.clients.backlog.heads import _MOST_SKIPPED, _Scan
from ecosystem.clients.backlog.lags import Head, Lag, Reader, ReaderPosition, lags, oldest_s, positions
from ecosystem.clients.backlog.sinks import StoredSinks, sink_positions
from runtime.group.composition import CommittedGroup
from runtime.model.log_ids import CommittedOffset, OffsetMetadata
from runtime.model.progress import Marks, ServiceProgress
from runtime.model.records import TopicPartition
from runtime.model.service import Input, Service, Start
from runtime.model.topology import Topology
from runtime.sink.placement import StoredPosition
from schemas.topics import ORDERS

TP, OTHER = TopicPartition("orders", 0), TopicPartition("orders", 1)
STARTS, ENDS = {TP: 3, OTHER: 3}, {TP: 90, OTHER: 90}
IDS = {"orders": "cluster/now"}


def topology(*names, start=Start.BEGINNING):
    return Topology(tuple(Service(name, (Input(ORDERS, print, start=start),), ()) for name in names))


def group(name, offset, *, progress=None, log_id="cluster/now", tp=TP):
    metadata = OffsetMetadata(1, log_id, frozenset(), progress or ServiceProgress())
    return CommittedGroup(name, {tp: CommittedOffset(offset, str(metadata))})


def found(plan, *groups):
    return {reader: tuple(p) for reader, p in positions(plan, groups, IDS, STARTS, ENDS).items() if reader.tp == TP}


def test_a_service_of_a_composition_has_the_position_that_the_metadata_name():
    ahead = group("credit+orders", 10, progress=ServiceProgress(ahead={"orders": 40}))
    assert found(topology("credit", "orders"), ahead) == {
        Reader("credit", TP): ("credit+orders", 10),
        Reader("orders", TP): ("credit+orders", 40),
    }


def test_a_service_that_was_in_several_groups_continues_from_the_furthest():
    groups = group("orders", 20), group("credit+orders", 30)
    assert found(topology("orders"), *groups) == {Reader("orders", TP): ("credit+orders", 30)}


def test_an_offset_beyond_the_end_counts_only_without_another():
    assert found(topology("orders"), group("orders", 20), group("a+orders", 91)) == {
        Reader("orders", TP): ("orders", 20)
    }
    assert found(topology("orders"), group("orders", 91)) == {Reader("orders", TP): ("orders", 91)}


def test_the_offset_of_a_recreated_topic_says_nothing():
    assert found(topology("orders"), group("orders", 20, log_id="cluster/before")) == {
        Reader("orders", TP): ("orders", 3)
    }


def test_a_partition_without_an_offset_is_read_from_its_beginning_or_from_now_on():
    only_other = group("orders", 20, tp=OTHER)
    assert found(topology("orders"), only_other) == {Reader("orders", TP): ("orders", 3)}
    assert found(topology("orders", start=Start.NOW), only_other) == {Reader("orders", TP): ("orders", 90)}


def test_a_service_that_never_ran_has_no_position():
    assert found(topology("orders"), group("dashboard", 20)) == {Reader("dashboard", TP): ("dashboard", 20)}


def test_a_sink_reads_on_where_its_database_says_unless_the_log_is_another():
    def offsets(stored, **more):
        positions = {} if stored is None else {Reader("history", TP): stored}
        found = sink_positions(StoredSinks(positions, **more), {"history": ["orders"]}, IDS, STARTS, ENDS)
        return {reader.tp: tuple(position) for reader, position in found.items()}

    read = StoredPosition(1, "cluster/now", 40)
    assert offsets(read) == {TP: ("history-sink", 40), OTHER: ("history-sink", 3)}, "from the start where never read"
    assert offsets(dataclasses.replace(read, log_id="cluster/before"))[TP] == ("history-sink", 3)
    assert offsets(None, never_started=("history",)) == offsets(read, unknown={"history": "away"}) == {}


def test_lag_counts_from_the_oldest_unprocessed_record():
    def lag(offset, head):
        reader = Reader("orders", TP)
        [only] = lags({reader: ReaderPosition("g", offset)}, {} if head is None else {reader: head}, ENDS, 60_000)
        return only.position, only.records, only.seconds

    assert lag(80, Head(82, 57_500)) == (82, 8, 2.5)
    assert lag(80, Head(90)) == (90, 0, 0.0), "only processed records and markers lie behind it"
    assert lag(90, None) == (90, 0, 0.0)
    assert lag(95, None) == (90, 0, 0.0), "beyond the end"
    assert lag(80, Head(80, 61_000)) == (80, 10, 0.0), "a clock that is ahead"
    assert lag(80, Head(80, None)) == (80, 10, None), "without a timestamp"
    assert lag(80, None) == (80, 10, None), "no broker has answered"


def test_the_oldest_of_all_is_unknown_if_one_is():
    def of(*ages):
        return oldest_s(Lag("a", "a", "orders", p, 0, 1, age) for p, age in enumerate(ages))

    assert (of(), of(1.0, 3.0), of(1.0, None)) == (0.0, 3.0, None)


def scan(*records, readers=("orders", "fraud"), end=90):
    scanned = _Scan({Reader(name, TP) for name in readers}, Marks(), end)
    scanned.extend(SimpleNamespace(offset=o, timestamp=1000 + o, headers=headers) for o, headers in records)
    return scanned.done, {reader.service: head for reader, head in scanned.heads().items()}


def test_a_record_that_a_service_processed_when_it_was_written_is_not_its_oldest():
    by_orders = (("consumed-by", b"details+orders"),)
    records = (10, by_orders), (11, by_orders), (13, ())
    assert scan(*records[:2]) == (False, {"fraud": Head(10, 1010), "orders": Head(90)})
    assert scan(*records) == (True, {"fraud": Head(10, 1010), "orders": Head(13, 1013)})


def test_records_behind_the_end_are_not_looked_at():
    assert scan((90, ()), readers=["orders"]) == (True, {"orders": Head(90)})


def test_the_search_ends_somewhere():
    marked = [(offset, (("consumed-by", b"orders"),)) for offset in range(_MOST_SKIPPED + 1)]
    done, heads = scan(*marked, readers=["orders"], end=10**9)
    assert (done, heads["orders"].offset) == (True, _MOST_SKIPPED - 1)
