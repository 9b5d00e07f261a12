"""The history's tables on a real PostgreSQL: merged as in Python, partitioned by month, dropped by retention."""

import asyncio
import os
import random
import signal
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import asyncpg
import pytest
from pydantic import SecretStr

from ecosystem.embedded.postgres import Postgres
from history_service import store
from history_service.maintenance import Maintenance
from history_service.projection import COLUMNS, project
from runtime.common.clock import utc_now
from runtime.common.settings import Settings
from runtime.database.pool import Database
from runtime.errors import DatabaseUnavailable, OffsetsMoved, RowsRejected
from runtime.model.records import TopicPartition
from runtime.sink.placement import LogState
from runtime.sink.ports import Move
from runtime.sink.postgres import PostgresBulkWriter, PostgresSinkDatabase
from tests.commands import orders
from tests.history import WAY
from tests.workers import PATIENCE_S, Deployment, until


@pytest.fixture
async def database(database_url):
    database = Database(
        "history", SecretStr(database_url), "history_service:migrations", Settings(database_timeout_s=30)
    )
    async with database.open():
        await database.ready(PATIENCE_S)
        yield database


@pytest.fixture
async def connection(database, database_url):
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def written(connection, *records):
    async with connection.transaction():
        await store.write(PostgresBulkWriter(connection), [project(records, utc_now)])


async def test_rows_merge_in_the_database_as_they_do_in_memory(connection):
    expected = dict(zip(COLUMNS, project(WAY, utc_now).changes["o"].columns, strict=True))
    for seed in range(30):
        chance = random.Random(seed)
        records = [*chance.sample(WAY, len(WAY)), *chance.sample(WAY, 3)]
        edges = [0, *sorted(chance.sample(range(1, len(records)), chance.randint(0, 8))), len(records)]
        for first, end in pairwise(edges):
            change = project(records[first:end], utc_now)
            change.records = []  # the projection may see a record again, which the tables hold once
            async with connection.transaction():
                await store.write(PostgresBulkWriter(connection), [change])
        row = await connection.fetchrow("DELETE FROM orders RETURNING *")
        assert {name: row[name] for name in COLUMNS} == expected, seed


async def test_records_get_partitions_and_lose_them_by_retention(database, connection):
    now = datetime(2026, 11, 29, tzinfo=UTC)
    maintenance = Maintenance(database, 1, lambda: now)
    await connection.execute("ALTER TABLE records ADD CHECK (log > 0)")  # an operator's own, that partitions need, too
    await written(connection, *WAY)  # before there is a partition
    old = WAY[0]._replace(offset=99, timestamp_ms=int((now - timedelta(days=61)).timestamp() * 1000))
    await written(connection, old)
    assert await connection.fetchval("SELECT count(*) FROM records_default") == len(WAY) + 1
    assert await maintenance.plan() == [
        "make partition records_2026_11",
        "make partition records_2026_12",
        "make partition records_2027_01",
        "delete records before 2026-10-01 from records_default",
        "delete orders last changed before 2026-10-01",
        "analyse records",
    ]
    await maintenance.run()
    assert await connection.fetchval("SELECT count(*) FROM records_2026_11") == len(WAY)
    assert await connection.fetchval("SELECT count(*) FROM records_default") == 1, "stored just now"
    assert await maintenance.plan() == [
        "delete records before 2026-10-01 from records_default",
        "delete orders last changed before 2026-10-01",
    ]
    later = Maintenance(database, 1, lambda: now + timedelta(days=365))
    assert "drop partition records_2026_11" in str(await later.plan())
    await later.run()
    assert await connection.fetchval("SELECT count(*) FROM records WHERE stage <> 'CREATED'") == 0
    for table in ("records_default", "orders", "order_words"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table


async def test_the_sink_makes_the_partitions_that_its_rows_need(database, connection):
    now = datetime(2026, 11, 29, tzinfo=UTC)
    maintenance = Maintenance(database, 0, lambda: now)
    slices = [project(WAY, utc_now)]
    await asyncio.gather(*(Maintenance(database, 0, lambda: now).make_partitions(slices) for _ in range(3)))
    await maintenance.make_partitions(slices)
    await written(connection, *WAY)
    assert await connection.fetchval("SELECT count(*) FROM records_2026_11") == len(WAY)


async def test_the_command_says_what_is_due_and_does_it(kafka, prefix, tmp_path, database, database_url):
    deployment = Deployment(kafka, prefix, tmp_path)
    for arguments, verb in ((["--dry-run"], "would make"), ([], "make")):
        code, said = await orders(deployment, "maintain", *arguments, HISTORY_DATABASE_URL=database_url)
        assert code == 0, said
        assert said.startswith(f"{verb} partition records_{utc_now():%Y_%m}\n"), said
    code, said = await orders(deployment, "maintain", "--dry-run", HISTORY_DATABASE_URL=database_url)
    assert (code, said) == (0, "nothing to do\n")
    code, said = await orders(deployment, "maintain")
    assert code == 1
    assert "HISTORY_DATABASE_URL" in said


async def test_a_frozen_database_times_out_and_is_reached_again(tmp_path):
    move = {TP: Move(1, 0, 1, 50)}
    with Postgres(tmp_path / "home") as server:
        url = SecretStr(server.database("history"))
        database = Database("history", url, "history_service:migrations", Settings(database_timeout_s=0.25))
        async with database.open():
            await database.ready(PATIENCE_S)
            async with sink(database) as opened:

                async def placed():
                    with suppress(DatabaseUnavailable):
                        return await opened.place({TP: LogState("", 0, 50)})

                await until(placed, "placed")
                backend = await opened._connection.fetchval("SELECT pg_backend_pid()")
                os.kill(backend, signal.SIGSTOP)
                async with asyncio.timeout(PATIENCE_S):
                    with pytest.raises(DatabaseUnavailable):
                        async with opened.transaction(move):
                            pass
                os.kill(backend, signal.SIGCONT)
                await until(placed, "placed again")


TP = TopicPartition("orders", 0)


@asynccontextmanager
async def sink(database):
    opened = PostgresSinkDatabase(database)
    try:
        yield opened
    finally:
        await opened.close()


async def test_offsets_advance_from_where_they_are_only(database, connection):
    log = LogState("cluster/a", 5, 50)
    async with sink(database) as first, sink(database) as second:
        [(position, _)] = (await first.place({TP: log})).values()
        assert position.next_offset == 5
        assert [found for found, _ in (await second.place({TP: log})).values()] == [position]
        async with first.transaction({TP: Move(position.log, 5, 7, 50)}):
            pass
        with pytest.raises(OffsetsMoved):
            async with second.transaction({TP: Move(position.log, 5, 9, 50)}) as writer:
                await writer.execute("DELETE FROM sink_offsets")
        assert await connection.fetchval("SELECT next_offset FROM sink_offsets") == 7
        # Made anew: the zombie of the old log changes nothing, even at the same offset.
        [(anew, _)] = (await second.place({TP: LogState("cluster/b", 7, 9)})).values()
        assert (anew.log, anew.next_offset) == (position.log + 1, 7)
        with pytest.raises(OffsetsMoved):
            async with first.transaction({TP: Move(position.log, 7, 8, 50)}):
                pass
        # Cut: the same log, whose later offsets are other records.
        [(cut, _)] = (await first.place({TP: LogState("cluster/b", 0, 3)})).values()
        assert (cut.log > anew.log, cut.next_offset) == (True, 0)


async def test_two_workers_on_one_partition_advance_it_once(database, connection):
    async with sink(database) as first, sink(database) as second:
        [(position, _)] = (await first.place({TP: LogState("", 0, 50)})).values()

        async def advance(one, expected):
            try:
                async with one.transaction({TP: Move(position.log, expected, expected + 1, 50)}):
                    await asyncio.sleep(0)
            except OffsetsMoved:
                return 0
            return 1

        won = [await asyncio.gather(advance(first, n), advance(second, n)) for n in range(20)]
        assert [sum(pair) for pair in won] == [1] * 20
        assert await connection.fetchval("SELECT next_offset FROM sink_offsets") == 20


@pytest.mark.parametrize("word", ["a\0b", "\ud800"])
async def test_rows_that_the_database_does_not_accept_are_told_from_other_errors(database, word):
    columns = ("produced_at", "order_id", "word")
    async with sink(database) as opened:
        [(position, _)] = (await opened.place({TP: LogState("", 0, 50)})).values()
        move = {TP: Move(position.log, 0, 1, 50)}
        with pytest.raises(RowsRejected):
            async with opened.transaction(move) as writer:
                await writer.copy("order_words", columns, [(utc_now(), "o", word)])
        with pytest.raises(DatabaseUnavailable):  # a table that is missing: all records wait for it
            async with opened.transaction(move) as writer:
                await writer.copy("nowhere", columns, [])
        async with opened.transaction(move):
            pass
