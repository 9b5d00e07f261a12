"""The history of a real worker: every record of every topic is in its database once, byte for byte."""

import asyncpg

from ecosystem.services import CORE
from history_service.stages import TOPIC_STAGES
from tests.workers import until


async def stored(url):
    """The rows of `records` by topic, partition and offset; each must be there once."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            'SELECT topic, partition, "offset", key, value, headers, stage, order_id FROM records '
            "JOIN sink_logs ON id = log"
        )
    finally:
        await connection.close()
    found = {tuple(row)[:3]: tuple(row)[3:] for row in rows}
    assert len(found) == len(rows), "a record is there twice"
    return found


async def written(deployment):
    """The committed records of all topics of the history, as `stored` has them."""
    found = {}
    for topic in TOPIC_STAGES:
        for r in await deployment.records(topic):
            headers = [part for name, value in r.headers for part in (name.encode(), value)]
            found[topic, r.partition, r.offset] = (r.key, r.value, headers or None)
    return found


async def is_complete(deployment, url):
    expected = await written(deployment)
    found = {place: row[:3] for place, row in (await stored(url)).items()}
    return found == expected and found


async def test_every_record_is_stored_once_and_projected(deployment, database_url):
    worker = await deployment.start(*CORE, "history", history_database_url=database_url)
    await deployment.stock(mug=100)
    for number in range(20):
        await deployment.post(worker, id=f"order-{number}", customerId=1, product="mug", quantity=1, price=5)
    for number in range(20):
        assert await deployment.outcome(worker, f"order-{number}")
    await until(lambda: is_complete(deployment, database_url), "stored", every=0.5)
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT * FROM orders")
    in_default = await connection.fetchval("SELECT count(*) FROM records_default")
    await connection.close()
    assert in_default == 0
    assert {row["id"]: row["state"] for row in rows} == {f"order-{n}": "VALIDATED" for n in range(20)}
