"""`orders backlog` on a real Kafka: of a service that stands still, and once it has caught up."""

import asyncio
import json
import os
import re
import signal
import sys
import time

import pytest

from ecosystem import services
from ecosystem.clients.backlog.reading import read_backlog
from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY
from tests.workers import PATIENCE_S, Deployment, until


async def start_command(deployment, *arguments):
    mine = {"KAFKA_BOOTSTRAP_SERVERS": deployment.servers, "TOPIC_PREFIX": deployment.prefix, "COLUMNS": "120"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ecosystem.cli", "backlog", *arguments), env=os.environ | mine, stdout=-1, stderr=-1
    )


async def said(deployment, *arguments):
    process = await start_command(deployment, *arguments)
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest.fixture
def lags(deployment: Deployment):
    """Reads the lags of inventory in warehouse-inventory that are not 0."""
    definitions = services.build_all(deployment.settings())

    async def read():
        found = await read_backlog(deployment.settings(), definitions)
        mine = [lag for lag in found.lags if (lag.service, lag.topic) == ("inventory", WAREHOUSE_INVENTORY.name)]
        assert len(mine) == 4, "each partition has a line"
        return [lag for lag in mine if lag.records], found

    return read


async def test_the_oldest_unprocessed_record_ages_until_the_service_has_caught_up(deployment: Deployment, lags):
    worker = await deployment.start("inventory")
    await deployment.stock(mug=1)

    async def done():
        return (await lags())[0] == []

    await until(done, "caught up", every=0.1)
    await deployment.stop(worker)
    assert "details" in (await lags())[1].never_started
    topic, hour_ago_ms = deployment.prefix + WAREHOUSE_INVENTORY.name, int(time.time() * 1000) - 3_600_000
    message = StockLevel(product="mug", count=2)
    sent = await deployment.producer.send_and_wait(
        topic, message.to_json(), key=b"mug", partition=0, timestamp_ms=hour_ago_ms
    )
    await deployment.send_raw(WAREHOUSE_INVENTORY.name, b"mug", message.to_json(), partitions=1)

    [before], _ = await lags()
    assert (before.partition, before.position, before.records, before.group) == (0, sent.offset, 2, "inventory")
    assert before.seconds is not None
    assert before.seconds >= 3600
    [after], _ = await lags()
    assert after.seconds is not None
    assert after.seconds > before.seconds

    shown, as_json = await asyncio.gather(said(deployment), said(deployment, "--json"))
    [line] = [json.loads(text) for text in as_json.splitlines() if json.loads(text)["records"]]
    assert (line["service"], line["topic"], line["partition"], line["records"]) == ("inventory", after.topic, 0, 2)
    assert line["seconds"] > after.seconds
    total = next(text for text in shown.splitlines() if text.startswith("in all"))
    assert total.split()[:5] == ["in", "all", "2", "1", "h"]

    worker = await deployment.start("inventory")
    await until(done, "caught up again", every=0.1)
    assert max(lag.seconds or 0 for lag in (await lags())[1].lags if lag.topic == WAREHOUSE_INVENTORY.name) == 0


async def test_the_sink_of_the_history_has_a_backlog_by_partition(deployment: Deployment, database_url, monkeypatch):
    monkeypatch.setenv("HISTORY_DATABASE_URL", database_url)

    async def history(*more):
        found = [json.loads(text) for text in (await said(deployment, "--json")).splitlines()]
        return [lag for lag in found if lag["service"] == "history" and (lag["records"] or more)]

    assert re.search(r"Never started: [^.]*\bhistory\b", await said(deployment))
    worker = await deployment.start("history", history_database_url=database_url)
    await deployment.send_raw("orders.dead-letters", b"mug", b"one")

    async def done():
        lags = await history("all")
        return len(lags) == 144 and not any(lag["records"] for lag in lags)

    await until(done, "stored", every=0.2)
    await deployment.stop(worker)
    topic, hour_ago_ms = deployment.prefix + WAREHOUSE_INVENTORY.name, int(time.time() * 1000) - 3_600_000
    for _ in range(2):
        await deployment.producer.send_and_wait(topic, b"x", key=b"mug", partition=3, timestamp_ms=hour_ago_ms)
    [lag] = await history()
    assert (lag["group"], lag["topic"], lag["partition"]) == ("history-sink", WAREHOUSE_INVENTORY.name, 3)
    assert (lag["records"], lag["position"], lag["end"]) == (2, 0, 2)
    assert 3600 <= lag["seconds"] < 3600 + PATIENCE_S

    await deployment.start("history", history_database_url=database_url)
    await until(done, "stored again", every=0.2)
    monkeypatch.setenv("HISTORY_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert "history is unknown: its database does not answer" in await said(deployment)
    monkeypatch.delenv("HISTORY_DATABASE_URL")
    assert "history is unknown: history needs a database: set HISTORY_DATABASE_URL" in await said(deployment)


async def test_a_watch_goes_on_until_ctrl_c(deployment: Deployment):
    await deployment.start("inventory")
    watching = await start_command(deployment, "--watch", "--every", "0.2", "--json")
    assert watching.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        times = set()
        while len(times) < 2:  # shown twice
            times.add(json.loads(await watching.stdout.readline())["at"])
        watching.send_signal(signal.SIGINT)
        _, err = await watching.communicate()
    assert (watching.returncode, err) == (0, b"")
