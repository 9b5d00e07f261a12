"""The history of real workers: every record of every topic is in its database once, byte for byte."""

import asyncio
import itertools
import json
import signal
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from bench.history import messages
from ecosystem.embedded.postgres import Postgres
from ecosystem.services import CORE
from history_service.stages import TOPIC_STAGES
from runtime.common.partitioning import partition_of
from runtime.kafka.topics import ensure_topics, public_topics
from schemas.topics import ORDERS
from tests.chaos.fleet import Fleet
from tests.commands import orders
from tests.workers import until

POISON = (
    b'{"id": "early", "customerId": 1, "product": "mug", "quantity": 1, "price": 1, '
    b'"createdAt": "0001-01-01T00:00:00+14:00"}'
)
"""An order that was created before the first time that the database knows."""
VENOM = b"venom"
"""A value that the test's database rejects in any form."""


@asynccontextmanager
async def connected(url):
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def stored(url):
    """The rows of `records` by topic, partition and offset; each must be there once."""
    async with connected(url) as connection:
        rows = await connection.fetch(
            'SELECT topic, partition, "offset", key, value, headers FROM records JOIN sink_logs ON id = log'
        )
    found = {tuple(row)[:3]: tuple(row)[3:] for row in rows}
    assert len(found) == len(rows), "a record is there twice"
    return found


async def written(deployment):
    """The committed records of all topics of the history, as `stored` has them."""
    found = {}
    for topic in TOPIC_STAGES:
        for r in await deployment.records(topic):
            if (topic, r.value) != (ORDERS.name, VENOM):
                headers = [part for name, value in r.headers for part in (name.encode(), value)]
                found[topic, r.partition, r.offset] = (r.key, r.value, headers or None)
    return found


async def is_read(deployment, url):
    """Whether nothing waits in a topic."""
    with suppress(OSError, asyncpg.PostgresError):
        async with connected(url) as connection:
            positions = await connection.fetch("SELECT topic, partition, next_offset FROM sink_offsets")
        read = {(deployment.prefix + row["topic"], row["partition"]): row["next_offset"] for row in positions}
        async with deployment.consumer() as consumer:
            ends = await consumer.end_offsets([*consumer_partitions(deployment)])
        return all(read.get((tp.topic, tp.partition), -1) >= end for tp, end in ends.items())
    return False


async def is_storing(url):
    """Whether records have been stored within a second."""
    with suppress(OSError, asyncpg.PostgresError):
        async with connected(url) as connection:
            return await connection.fetchval("SELECT max(stored_at) > now() - interval '1 second' FROM records")
    return False


def consumer_partitions(deployment):
    from aiokafka import TopicPartition as Physical

    return [Physical(deployment.prefix + topic, p) for topic in TOPIC_STAGES for p in range(4)]


async def audit(deployment, url):
    """The report of `orders audit --history`."""
    code, said = await orders(deployment, "audit", "--history", "--json", HISTORY_DATABASE_URL=url)
    report = json.loads(said)
    assert code == (0 if report["ok"] else 1), said
    return report


async def test_every_record_is_stored_once_and_projected(deployment, database_url):
    worker = await deployment.start(*CORE, "history", history_database_url=database_url)
    await deployment.stock(mug=100)
    ids = [f"order-{number}" for number in range(10)]
    for order_id in ids:
        await deployment.post(worker, id=order_id, customerId=1, product="mug", quantity=1, price=5)
    for order_id in ids:
        assert await deployment.outcome(worker, order_id)
    await until(lambda: is_read(deployment, database_url), "read", every=0.2)
    assert await stored(database_url) == await written(deployment)
    assert worker.readiness()["sinks"] == {"history": "storing"}
    async with connected(database_url) as connection:
        states = {row["id"]: row["state"] for row in await connection.fetch("SELECT id, state FROM orders")}
        found = await connection.fetch(
            "SELECT DISTINCT order_id FROM order_words "
            "WHERE history_trigrams(word) @> history_trigrams('der-3') AND word LIKE '%der-3%'"
        )
        in_default = await connection.fetchval("SELECT count(*) FROM records_default")
    assert states == dict.fromkeys(ids, "VALIDATED")
    assert [row["order_id"] for row in found] == ["order-3"]
    assert in_default == 0


async def test_a_sink_whose_consumer_has_stopped_fetching_gets_a_new_one(deployment, database_url):
    worker = await deployment.start(*CORE, "history", history_database_url=database_url)
    await deployment.stock(mug=100)
    await until(lambda: is_read(deployment, database_url), "read", every=0.2)
    [engine] = worker._sinks._engines
    ended = engine._consumer._consumer._fetcher._fetch_task
    ended.cancel()

    await deployment.post(worker, id="later", customerId=1, product="mug", quantity=1, price=5)
    assert await deployment.outcome(worker, "later")
    await until(lambda: is_read(deployment, database_url), "read by a new consumer", every=0.2)
    assert await stored(database_url) == await written(deployment)
    await until(lambda: worker.readiness()["sinks"] == {"history": "storing"}, "storing again")


@pytest.fixture
def own_server(tmp_path):
    with Postgres(tmp_path / "postgres") as server:
        yield server


async def load(deployment, sent):
    """Writes records of orders until it is cancelled."""
    for first in itertools.count(step=5):
        waiting = []
        for number in range(first, first + 5):
            for topic, message, headers in messages(number):
                key, name = topic.key(message).encode(), deployment.prefix + topic.name
                partition = partition_of(key, 4)
                waiting.append(
                    await deployment.producer.send(
                        name, message.to_json(), key=key, partition=partition, headers=list(headers)
                    )
                )
        await asyncio.gather(*waiting)
        sent.append(len(waiting))
        await asyncio.sleep(0.1)


async def test_crashes_outages_zombies_and_rejected_records_lose_and_repeat_nothing(deployment, own_server):
    url = own_server.database("history")
    await ensure_topics(deployment.settings(), {name: public_topics()[name] for name in TOPIC_STAGES})
    async with Fleet(deployment, ("history",), ("history",), history_database_url=url) as fleet:
        first, second = fleet.processes
        await until(lambda: "sink reads" in first.log.read_text(), "migrated")
        async with connected(url) as connection:
            allowed = f"value <> '\\x{VENOM.hex()}' OR stage = 'DEAD_LETTER'"
            await connection.execute(f"ALTER TABLE records ADD CHECK ({allowed})")
        sent = []
        loading = asyncio.create_task(load(deployment, sent))

        async def more(count):
            goal = len(sent) + count
            await until(lambda: len(sent) >= goal, "load")

        for process, point in ((first, "sink.written=crash@3"), (second, "sink.committed=crash@3")):
            await process.end(signal.SIGKILL)
            process.environment["FAIL_POINTS"], process.supervised = point, False
            process.start()
            await until(lambda process=process: not process.running, f"crashed at {point}")
            del process.environment["FAIL_POINTS"]
            process.supervised = True
        await fleet.ready()
        await deployment.send_raw(ORDERS.name, b"early", POISON)
        await deployment.send_raw(ORDERS.name, b"venom", VENOM)
        await more(3)
        await asyncio.to_thread(own_server.kill)
        await more(3)
        await asyncio.to_thread(own_server.restart)
        await until(lambda: is_storing(url), "storing again", every=0.2)
        all_of_them = "sink reads service=history partitions=144"
        before = first.log.read_text().count(all_of_them)
        second.tell(signal.SIGSTOP)  # until the group has given its partitions to the first one
        await until(lambda: first.log.read_text().count(all_of_them) > before, "taken over")
        await more(3)
        second.tell(signal.SIGCONT)
        await more(3)
        loading.cancel()
        await asyncio.wait([loading])
        await fleet.ready()
        await until(lambda: is_read(deployment, url), "read", every=0.2)
        assert await stored(url) == await written(deployment)

        letters = await deployment.records(f"{ORDERS.name}.dead-letters")
        assert {letter.value for letter in letters} == {POISON, VENOM}
        [venom] = [dict(letter.headers)["offset"] for letter in letters if letter.value == VENOM][:1]
        report = await audit(deployment, url)
        assert [finding["difference"] for finding in report["findings"]] == ["missing"], report
        assert (report["findings"][0]["topic"], report["findings"][0]["offset"]) == (ORDERS.name, int(venom))
    async with connected(url) as connection:
        place = '(log, partition, "offset")'
        first = f"{place} = (SELECT {place[1:-1]} FROM records WHERE stage = $1 LIMIT 1)"
        await connection.execute(f"DELETE FROM records WHERE {first}", "PAYMENT")
        await connection.execute(f"UPDATE records SET value = 'x' WHERE {first}", "SHIPPED")
        await connection.execute(
            "INSERT INTO records SELECT produced_at + interval '1 ms', stored_at, \"offset\", log, partition, stage, "
            "order_id, key, value, headers FROM records WHERE stage = 'FULFILLED' LIMIT 1"
        )
    report = await audit(deployment, url)
    assert {kind: report[kind] for kind in ("missing", "differs", "twice", "foreign")} == {
        "missing": 2,
        "differs": 1,
        "twice": 1,
        "foreign": 0,
    }


async def test_a_topic_that_is_made_anew_is_read_from_its_beginning(deployment, database_url):
    settings = {"history_database_url": database_url, "name": "w0"}
    worker = await deployment.start("history", **settings)
    await deployment.send_raw(ORDERS.name, b"a", b"old")
    await until(lambda: is_read(deployment, database_url), "read", every=0.2)
    await deployment.stop(worker)
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.servers, request_timeout_ms=30_000)
    await admin.start()
    await admin.delete_topics([deployment.prefix + ORDERS.name], timeout_ms=20_000)

    async def is_gone():
        return deployment.prefix + ORDERS.name not in await admin.list_topics()

    await until(is_gone, "deleted", every=0.2)
    await admin.close()
    await deployment.start("history", **settings)
    await deployment.send_raw(ORDERS.name, b"a", b"new")
    await deployment.send_raw(ORDERS.name, b"a", b"newer")
    await until(lambda: is_read(deployment, database_url), "read", every=0.2)
    async with connected(database_url) as connection:
        rows = await connection.fetch("SELECT DISTINCT log, value FROM records WHERE value IN ('old', 'new', 'newer')")
        assert sorted(row["value"] for row in rows) == [b"new", b"newer", b"old"]
        assert len({row["log"] for row in rows}) == 2
    assert (await audit(deployment, database_url))["ok"]
