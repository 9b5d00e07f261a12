from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.loop.ownership import Ownership
from runtime.loop.timers import Timers
from runtime.model.records import Membership, TopicPartition
from runtime.model.service import ScheduledTimer, Service, Timer
from runtime.model.topology import Topology
from runtime.state.stores import MemoryStore
from tests.samples import NOON

SECOND = timedelta(seconds=1)
SERVICE = Service("keeper", (), (), timers=(Timer("due", lambda key, ctx: None),))


def new_timers():
    return Timers(Topology((SERVICE,)))


def schedule(timers, key, seconds, partition=0):
    row = None if seconds is None else ScheduledTimer(at=NOON + seconds * SECOND).to_json()
    timers.apply("keeper-timers", partition, {key.encode(): row})


def due(timers, seconds, limit=100):
    return [d.key for d in timers.due(NOON + seconds * SECOND, limit)]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.none() | st.integers(0, 9))))
def test_the_last_schedule_of_each_key_counts(schedules):
    timers, last = new_timers(), {}
    for key, seconds in schedules:
        schedule(timers, key, seconds)
        last[key] = seconds
    pending = {key: seconds for key, seconds in last.items() if seconds is not None}
    assert len(timers) == len(pending)
    assert timers.next() == (NOON + min(pending.values()) * SECOND if pending else None)
    assert set(due(timers, 4)) == {key for key, seconds in pending.items() if seconds <= 4}


def test_the_oldest_fire_first_and_the_others_stay():
    timers = new_timers()
    for key, seconds in {"c": 3, "a": 1, "b": 2}.items():
        schedule(timers, key, seconds)
    assert due(timers, 9, limit=2) == ["a", "b"]
    assert due(timers, 9, limit=2) == ["c"]


def test_timers_of_a_store_are_loaded_and_cleared():
    store = MemoryStore()
    store.apply({b"a": ScheduledTimer(at=NOON).to_json()}, 0)
    timers = new_timers()
    timers.load("keeper-timers", 3, store)
    timers.load("another-table", 3, store)
    [found] = timers.due(NOON, 10)
    assert (found.partition, found.key, found.service) == (3, "a", SERVICE)
    timers.load("keeper-timers", 3, store)
    timers.clear()
    assert timers.next() is None


@pytest.mark.parametrize("last", [None, 10**6])
def test_cancelled_and_rescheduled_timers_do_not_fill_the_memory(last):
    timers = new_timers()
    for n in range(10_000):
        schedule(timers, "key" if last else str(n), 10**6 + n)
        if last is None:
            schedule(timers, str(n), None)
    assert len(timers._heap) < 3000
    assert len(timers) == (1 if last else 0)


def test_timers_wait_until_the_backlog_of_their_partition_is_processed():
    timers, ownership = new_timers(), Ownership()
    tp = TopicPartition("pings", 1)
    ownership.acquire(Membership(1, "me"), {tp: 5}, {tp: 8}, {})
    timers.hold(ownership.behind)
    schedule(timers, "k", 1, partition=1)
    schedule(timers, "elsewhere", 1, partition=0)

    assert due(timers, 9) == ["elsewhere"]
    schedule(timers, "elsewhere", None, partition=0)
    assert ownership.advance({tp: 7}) == set()
    timers.release(ownership.advance({tp: 8}))

    assert due(timers, 9) == ["k"]
