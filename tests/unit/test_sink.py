"""The sink stores each record once, whatever crashes, is taken over, is unavailable or is rejected."""

import asyncio
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import DatabaseUnavailable
from runtime.model.records import TopicPartition
from tests.sinks import POISON, RAW, SINK, VENOM, Logs, MemoryDatabase, Worker


def is_exact(logs, database):
    """Whether the database has each record once, but for those that it rejects in any form."""
    expected = [(tp.partition, r.offset, r.value) for tp, log in logs.records.items() for r in log if r.value != VENOM]
    return sorted(row[1:4] for row in database.rows) == sorted(expected)


async def test_records_are_stored_once_and_offsets_with_them():
    logs, database = Logs(), MemoryDatabase()
    logs.append(0, b"a", b"b", b"c", b"d")
    logs.append(1, b"e")
    await Worker(logs, database, 0, 1).drain()
    assert is_exact(logs, database)
    assert {tp.partition: at.next_offset for tp, at in database.offsets.items()} == {0: 4, 1: 1}


async def test_a_restarted_worker_reads_on_where_the_database_is():
    logs, database = Logs(), MemoryDatabase()
    logs.append(0, b"a", b"b", b"c", b"d")
    worker = Worker(logs, database, 0, 1)
    await worker.step()
    await worker.engine.settle()  # killed: the next batch was never stored
    logs.append(0, b"e")
    await Worker(logs, database, 0, 1).drain()
    assert is_exact(logs, database)


@pytest.mark.parametrize("fails", ["fails_before", "fails_after"])
async def test_a_transaction_that_fails_or_is_in_doubt_is_found_out(fails):
    logs, database = Logs(), MemoryDatabase()
    logs.append(0, b"a", b"b", b"c", b"d", b"e")
    worker = Worker(logs, database, 0, 1)
    setattr(database, fails, 1)
    await worker.drain()
    assert is_exact(logs, database)


async def takeover(database):
    """A worker is paused before its transaction; another one stores the records; the first one goes on."""
    logs = Logs()
    logs.append(0, b"a", b"b")
    zombie, successor = Worker(logs, database, 0, 1), Worker(logs, database)
    database.go_on.clear()
    database.written.clear()
    await zombie.step()
    await database.written.wait()
    waiting = zombie.engine._storing
    gate, database.go_on = database.go_on, asyncio.Event()  # it stays closed for the zombie alone
    database.go_on.set()
    successor.consumer.assign(0, 1)
    await successor.drain()
    gate.set()
    await asyncio.wait([waiting])
    await zombie.drain()
    return logs


async def test_a_zombie_changes_nothing():
    database = MemoryDatabase()
    logs = await takeover(database)
    assert is_exact(logs, database)


async def test_a_partition_without_records_is_checked_beside_a_busy_one():
    logs, database = Logs(), MemoryDatabase()
    logs.append(0, b"a", b"b", b"c", b"d", b"e", b"f", b"g")
    worker = Worker(logs, database, 0, 1)
    checked = []

    def transaction(moves):
        checked.extend(tp.partition for tp, move in moves.items() if move.next_offset == move.end)
        return original(moves)

    original, database.transaction = database.transaction, transaction
    await worker.step()
    await worker.step()
    await worker.engine.settle()
    assert checked == [1, 1]


async def test_an_outage_is_waited_for():
    logs, database = Logs(), MemoryDatabase()
    worker = Worker(logs, database, 0, 1)
    await worker.drain(3)
    database.away = True
    logs.append(0, b"a", b"b")
    await worker.engine.step()
    with pytest.raises(DatabaseUnavailable):
        await worker.engine.step()
    await worker.engine.abandon()
    assert database.rows == []
    database.away = False
    await worker.drain()
    assert is_exact(logs, database)


async def test_the_status_says_why_nothing_is_stored_and_recovers():
    logs, database = Logs(), MemoryDatabase()
    worker = Worker(logs, database, 0, 1)
    worker.engine.FIRST_PAUSE_S = worker.engine.LONGEST_PAUSE_S = 0.001
    database.away = True
    running = asyncio.create_task(worker.engine.run())
    while "away" not in (worker.engine.unavailable or ""):
        await asyncio.sleep(0)
    database.away = False
    logs.append(1, b"a")
    while worker.engine.unavailable is not None or not database.rows:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert is_exact(logs, database)


async def test_a_rejected_record_is_dead_lettered_alone_and_its_bytes_are_stored():
    logs, database = Logs(), MemoryDatabase()
    logs.append(0, b"a", b"b", POISON, b"c")
    worker = Worker(logs, database, 0, 1)
    await worker.drain()
    assert is_exact(logs, database)
    assert [row[3] for row in database.rows if row[4] == RAW] == [POISON]
    [letter] = worker.letters
    headers = dict(letter.headers)
    assert (letter.topic, letter.value, headers["service"], headers["offset"]) == (
        "orders.dead-letters",
        POISON,
        b"history",
        b"2",
    )


async def test_a_record_that_is_rejected_in_any_form_does_not_stop_the_others():
    logs, database = Logs(), MemoryDatabase()
    logs.append(0, VENOM, b"a", VENOM)
    worker = Worker(logs, database, 0, 1)
    await worker.drain()
    assert is_exact(logs, database)
    assert [letter.value for letter in worker.letters] == [VENOM, VENOM]
    assert database.offsets[TopicPartition("orders", 0)].next_offset == 3


async def test_a_record_of_which_no_rows_can_be_made_is_found():
    def prepare(records):
        if any(r.value == b"b" for r in records):
            raise KeyError("b")
        return SINK.prepare(records)

    logs, database = Logs(), MemoryDatabase()
    logs.append(0, b"a", b"b", b"c")
    worker = Worker(logs, database, 0, 1, sink=dataclasses.replace(SINK, prepare=prepare))
    await worker.drain()
    assert is_exact(logs, database)
    assert [letter.value for letter in worker.letters] == [b"b"]


async def test_unreadable_records_are_dead_lettered_and_passed_with_their_range():
    logs, database = Logs(), MemoryDatabase()
    logs.append(0, b"a")
    logs.append(0, None, unreadable="damaged", last_offset=1)
    logs.append(0, b"c")
    worker = Worker(logs, database, 0, 1)
    await worker.drain()
    assert is_exact(logs, database)
    assert [dict(letter.headers)["error"] for letter in worker.letters] == [b"damaged"]


async def test_a_topic_that_is_made_anew_has_another_log():
    logs, database = Logs(), MemoryDatabase()
    logs.append(0, b"a", b"b")
    worker = Worker(logs, database, 0, 1)
    await worker.drain()
    logs.recreate("cluster/2")
    logs.append(0, b"x", b"y", b"z")
    worker.consumer.assign(0, 1)
    await worker.drain()
    assert [row[3] for row in sorted(database.rows)] == [b"a", b"b", b"x", b"y", b"z"]
    assert len({row[:3] for row in database.rows}) == 5


async def test_a_range_that_the_broker_removed_is_reported_and_passed():
    logs, database = Logs(), MemoryDatabase()
    logs.append(0, b"a")
    worker = Worker(logs, database, 0, 1)
    await worker.drain()
    logs.append(0, b"b", b"c", b"d")
    logs.start[TopicPartition("orders", 0)] = 3
    await worker.drain()
    assert [row[3] for row in database.rows] == [b"a", b"d"]
    [letter] = worker.letters
    assert dict(letter.headers)["lost-until"] == b"3"


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 1), st.sampled_from([b"a", b"b", POISON, VENOM])),
        st.tuples(st.just("step"), st.integers(0, 1), st.integers(1, 4)),
        st.tuples(st.just("assign"), st.integers(0, 1), st.sampled_from([(), (0,), (1,), (0, 1)])),
        st.tuples(st.just("crash"), st.integers(0, 1), st.just(None)),
        st.tuples(st.just("fails_before"), st.integers(1, 2), st.just(None)),
        st.tuples(st.just("fails_after"), st.integers(1, 2), st.just(None)),
        st.tuples(st.just("away"), st.booleans(), st.just(None)),
    ),
    max_size=40,
)


async def perform(actions, database):
    """Performs actions of two workers, whose assignments may overlap, and then lets one finish."""
    logs, retired = Logs(), []
    workers = [Worker(logs, database, 0), Worker(logs, database, 1)]
    for action, which, argument in actions:
        if action == "append":
            logs.append(which, argument)
        elif action == "step":
            # At the same time as the other one.
            await asyncio.gather(workers[which].drain(argument), workers[1 - which].drain(argument // 2))
        elif action == "assign":
            workers[which].consumer.assign(*argument)
        elif action == "crash":
            retired.append(workers[which])  # what it stores may still be on its way
            workers[which] = Worker(logs, database, which)
        elif action == "away":
            database.away = which
        else:
            setattr(database, action, which)
    database.away = False
    workers[0].consumer.assign(0, 1)
    workers[1].consumer.assign()
    await workers[0].drain(60)
    for worker in [*workers, *retired]:
        await worker.engine.abandon()
    return logs


@settings(max_examples=150)
@given(ACTIONS)
def test_every_record_is_stored_exactly_once_whatever_happens(actions):
    async def run():
        database = MemoryDatabase()
        logs = await perform(actions, database)
        assert is_exact(logs, database)

    asyncio.run(run())


async def test_without_compare_and_set_a_zombie_stores_records_twice():
    database = MemoryDatabase(compares=False)
    assert not is_exact(await takeover(database), database), "the tests above would not see it"


async def test_offsets_outside_of_the_transaction_store_records_twice():
    logs, database = Logs(), MemoryDatabase(together=False)
    logs.append(0, b"a", b"b")
    database.fails_after = 1
    await Worker(logs, database, 0, 1).drain()
    assert not is_exact(logs, database), "the tests above would not see it"
