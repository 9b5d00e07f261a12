"""A history that is rebuilt beside the one that answers, and takes its place, on a real Kafka and PostgreSQL."""

import asyncio
import json
from contextlib import AsyncExitStack, suppress

import asyncpg
import pytest
from aiokafka import TopicPartition as Physical
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from pydantic import SecretStr

from ecosystem.rebuild import older_records
from ecosystem.rebuild.older_records import OlderRecords
from ecosystem.rebuild.successor import BEFORE, NEXT, RebuildError, Successor
from history_service.maintenance import Maintenance
from history_service.stages import TOPIC_STAGES
from runtime.common.clock import utc_now
from runtime.common.settings import Settings
from runtime.database.pool import Database
from runtime.errors import OffsetsMoved
from runtime.model.records import TopicPartition
from runtime.sink.placement import LogState
from runtime.sink.ports import Move
from runtime.sink.postgres import PostgresSinkDatabase
from schemas.topics import PAYMENTS
from tests.commands import orders
from tests.integration.test_history_sink import audit, connected, is_read, load, stored
from tests.integration.test_migrations import filled, rows
from tests.workers import PATIENCE_S, until


@pytest.fixture
async def opened(database_url):
    """Opens the database in a schema."""
    async with AsyncExitStack() as stack:

        async def open_(schema=None):
            settings, url = Settings(database_timeout_s=60), SecretStr(database_url)
            database = Database("history", url, "history_service:migrations", settings, schema=schema)
            await stack.enter_async_context(database.open())
            await database.ready(PATIENCE_S)
            return database

        yield open_


class Pair:
    """The history of earlier versions, and a successor whose sink has read all of its topics, which are empty now."""

    async def open(self, opened, url):
        await filled(url, "history", "0001")
        self.current = await opened()
        self.successor = Successor(self.current, TOPIC_STAGES)
        await self.successor.prepare()
        self.next = await opened(NEXT)
        await self.successor.copy_logs()
        self.old_sink, self.new_sink = PostgresSinkDatabase(self.current), PostgresSinkDatabase(self.next)
        async with connected(url) as connection:
            self.offsets = {
                TopicPartition(row["topic"], row["partition"]): row["next_offset"]
                for row in await connection.fetch("SELECT * FROM sink_offsets")
            }
        self.logs = {tp: LogState(f"cluster/{tp.topic}", at, at) for tp, at in self.offsets.items()}
        await self.new_sink.place(self.logs)

    async def copy(self, on_progress=lambda _: None):
        maintenance = Maintenance(self.next, 0, utc_now)
        return await OlderRecords(self.current.connect, self.new_sink, maintenance, on_progress).copy()


@pytest.fixture
async def pair(opened, database_url):
    pair = Pair()
    await pair.open(opened, database_url)
    yield pair
    await pair.old_sink.close()
    await pair.new_sink.close()


async def test_records_that_topics_no_longer_have_are_copied_once_and_projected_again(pair, database_url, monkeypatch):
    before = await rows(database_url)
    monkeypatch.setattr(older_records, "_ROWS", older_records._ROWS.replace("LIMIT 1000", "LIMIT 3"))

    def interrupt(copied):
        if copied > 6:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await pair.copy(interrupt)
    assert await pair.copy() < len(before["records"]), "it goes on where it stopped"
    assert await pair.copy() == 0
    async with connected(database_url) as connection:
        await connection.execute("UPDATE orders SET state = 'CREATED'")  # what the projection knows better
    assert await pair.successor.switch()
    after = await rows(database_url)
    assert {table: sorted(after[table]) for table in ("records", "orders", "order_words", "sink_logs")} == {
        table: sorted(before[table]) for table in ("records", "orders", "order_words", "sink_logs")
    }
    assert await pair.successor.waiting() is None
    with pytest.raises(RebuildError, match="--drop-before"):
        await pair.successor.prepare()
    assert await pair.successor.drop(BEFORE)
    assert not await pair.successor.drop(BEFORE)


async def test_a_batch_that_is_being_stored_is_in_one_history_as_a_whole(pair, database_url):
    """Without the wait, its offsets would be in the one, and its rows in the other."""
    tp = TopicPartition(PAYMENTS.name, 0)
    at, columns = pair.offsets[tp], ("produced_at", "order_id", "word")
    async with pair.old_sink.transaction({tp: Move(41, at, at + 1, at + 1)}) as writer:
        assert not await pair.successor.switch(), "a transaction is open"
        await writer.copy("order_words", columns, [(utc_now(), "o", "of-the-batch")])
    switching = asyncio.create_task(pair.successor.switch())
    async with pair.new_sink.transaction({tp: Move(41, at, at + 1, at + 1)}) as writer:
        await writer.copy("order_words", columns, [(utc_now(), "o", "of-the-batch")])
    assert await switching, "as soon as the successor has the batch"
    with pytest.raises(OffsetsMoved):
        async with pair.old_sink.transaction({tp: Move(41, at, at + 1, at + 1)}):
            pass
    async with pair.old_sink.transaction({tp: Move(41, at + 1, at + 2, at + 2)}) as writer:
        await writer.copy("order_words", columns, [(utc_now(), "o", "of-the-next")])
    async with connected(database_url) as connection:
        for schema, expected in (("public", ["of-the-batch", "of-the-next"]), (BEFORE, ["of-the-batch"])):
            found = await connection.fetch(f"SELECT word FROM {schema}.order_words WHERE word LIKE 'of-%' ORDER BY 1")
            assert [row["word"] for row in found] == expected, schema


async def test_a_successor_that_is_behind_takes_no_place(pair, monkeypatch):
    tp = TopicPartition(PAYMENTS.name, 0)
    at = pair.offsets[tp]
    monkeypatch.setattr("ecosystem.rebuild.successor._CATCH_UP_S", 0.2)
    async with pair.old_sink.transaction({tp: Move(41, at, at + 1, at + 1)}):
        pass
    assert not await pair.successor.switch()
    async with pair.new_sink.transaction({tp: Move(41, at, at + 1, at + 1)}):
        pass
    assert await pair.successor.switch()


async def test_nothing_is_stored_in_the_old_history_once_the_successor_has_caught_up(pair, database_url, monkeypatch):
    tp, columns = TopicPartition(PAYMENTS.name, 0), ("produced_at", "order_id", "word")
    at, caught_up, storing = pair.offsets[tp], Successor._caught_up, []

    async def store():
        async with pair.old_sink.transaction({tp: Move(41, at, at + 1, at + 1)}) as writer:
            await writer.copy("order_words", columns, [(utc_now(), "o", "late")])

    async def then_store(self, connection):
        result = await caught_up(self, connection)
        storing.append(asyncio.create_task(store()))
        async with connected(database_url) as other:
            waits = "SELECT count(*) FROM pg_locks WHERE relation = 'sink_offsets'::regclass AND NOT granted"

            async def seen():
                return storing[0].done() or await other.fetchval(waits)

            await until(seen, "the sink stores or waits")
        assert not storing[0].done()
        return result

    monkeypatch.setattr(Successor, "_caught_up", then_store)
    assert await pair.successor.switch()
    await storing[0]
    async with connected(database_url) as connection:
        for schema, count in (("public", 1), (BEFORE, 0)):
            words = f"SELECT count(*) FROM {schema}.order_words WHERE word = 'late'"
            assert await connection.fetchval(words) == count, schema


async def test_tables_that_are_read_are_not_moved(pair, database_url):
    async with connected(database_url) as connection, connection.transaction(isolation="repeatable_read"):
        seen = await connection.fetchval("SELECT count(*) FROM records")
        assert not await pair.successor.switch()
        assert await connection.fetchval("SELECT count(*) FROM records") == seen
    assert await pair.successor.switch()


class Readers:
    """Asks workers of the history again and again, and keeps what was wrong."""

    def __init__(self, deployment, workers):
        self.answers, self.wrong = 0, []
        self._deployment, self._workers = deployment, workers
        self._seen: dict[str, int] = {}

    async def run(self):
        while True:
            for worker in self._workers:
                page = await self._ask(worker, "/v1/orders?limit=20")
                if page is None or len(page["orders"]) < 20:
                    self.wrong.append(page)
                    continue
                for order in page["orders"][-2:]:
                    found = await self._ask(worker, f"/v1/orders/{order['id']}/history")
                    records = len(found["records"]) if found else 0
                    if records < self._seen.get(order["id"], 1):
                        self.wrong.append((order["id"], self._seen[order["id"]], found))
                    self._seen[order["id"]] = records
                    await self._ask(worker, f"/v1/orders/{order['id']}/explain")

    async def _ask(self, worker, path):
        answer = await self._deployment.ask(worker, "GET", path)
        self.answers += 1
        if answer.status != 200:
            self.wrong.append((path, answer))
            return None
        return answer.json()


async def positions(url, schema="public"):
    async with connected(url) as connection:
        with suppress(asyncpg.UndefinedTableError):
            return await connection.fetchval(f"SELECT sum(next_offset) FROM {schema}.sink_offsets")
    return None


async def test_readers_go_on_while_the_history_is_rebuilt_and_switched(deployment, database_url):
    workers = [await deployment.start("history", name=f"w{n}", history_database_url=database_url) for n in range(2)]
    sent = []
    loading = asyncio.create_task(load(deployment, sent))
    await until(lambda: len(sent) >= 15, "load")
    loading.cancel()
    await asyncio.wait([loading])
    await until(lambda: is_read(deployment, database_url), "read", every=0.2)
    kept = await stored(database_url)

    # The topic loses records that the history has; the history has a wrong record and has lost an order.
    client = AIOKafkaAdminClient(bootstrap_servers=deployment.servers)
    await client.start()
    await client.delete_records({Physical(deployment.prefix + PAYMENTS.name, p): RecordsToDelete(5) for p in range(4)})
    await client.close()
    async with connected(database_url) as connection:
        lost = await connection.fetchval("SELECT id FROM orders ORDER BY created_at LIMIT 1")
        await connection.execute("DELETE FROM orders WHERE id = $1", lost)
        await connection.execute("UPDATE records SET value = 'x' WHERE order_id = $1 AND stage = 'CREATED'", lost)
    assert not (await audit(deployment, database_url))["ok"]

    loading = asyncio.create_task(load(deployment, sent))
    readers = Readers(deployment, workers)
    reading = asyncio.create_task(readers.run())

    async def rebuild(*arguments, **environment):
        return await orders(deployment, "rebuild", *arguments, HISTORY_DATABASE_URL=database_url, **environment)

    code, said = await rebuild(FAIL_POINTS="sink.written=crash@2")
    assert code == -9, said
    first = await positions(database_url, NEXT)
    assert first, "it had stored a batch"
    both = await asyncio.gather(*(rebuild("--no-switch") for _ in range(2)))
    assert [code for code, _ in both] == [0, 0], both
    assert await positions(database_url, NEXT) >= first, "what it had stored was kept"
    asked = readers.answers
    code, said = await rebuild()
    assert (code, said.splitlines()[-1][:23]) == (0, "The history is rebuilt."), said

    done = len(sent)
    await until(lambda: len(sent) > done + 5 and readers.answers > asked + 20, "load and readers go on")
    for task in (loading, reading):
        task.cancel()
    await asyncio.wait([loading, reading])
    assert not readers.wrong, readers.wrong[:3]
    await until(lambda: is_read(deployment, database_url), "read", every=0.2)
    report = await audit(deployment, database_url)
    assert report["ok"], json.dumps(report)
    assert report["waiting"] == 0
    found = await stored(database_url)
    assert {place: found.get(place) for place in kept} == kept, "records that the topic no longer has are kept"
    assert [w.readiness()["sinks"] for w in workers] == [{"history": "storing"}] * 2
    assert (await deployment.ask(workers[0], "GET", f"/v1/orders/{lost}")).json()["id"] == lost
    async with connected(database_url) as connection:
        assert await connection.fetchval("SELECT state FROM orders WHERE id = $1", lost) in {"SHIPPED", "FAILED"}
        before = await connection.fetchval(f"SELECT count(*) FROM {BEFORE}.records WHERE value = 'x'")
    assert before == 1, "the one before is kept"
    code, said = await rebuild("--drop-before")
    assert (code, said) == (0, "history_before is deleted.\n")
