"""`orders replay` on a real Kafka and PostgreSQL: what it selects, what it writes, and where it goes on."""

import asyncio
import json
import os
import signal
import sys
from functools import partial

import pytest

from ecosystem.replay.records import mark_of
from ecosystem.services import CORE
from schemas.topics import ORDERS
from tests.commands import orders
from tests.integration.test_history_sink import is_read
from tests.workers import until

GROUP = "+".join(sorted((*CORE, "history")))


@pytest.fixture
async def shop(deployment, database_url):
    """A shop with six orders, of which four have failed for want of stock, and one for fraud; its history is read."""
    worker = await deployment.start(*CORE, "history", history_database_url=database_url)
    await deployment.stock(mug=1, pot=100)
    for number in range(5):
        await deployment.post(worker, id=f"o-{number}", customerId=number, product="mug", quantity=1, price=5)
        await deployment.outcome(worker, f"o-{number}")
    await deployment.post(worker, id="rich", customerId=9, product="pot", quantity=1, price=5000)
    await deployment.outcome(worker, "rich")
    await stored(deployment, database_url)

    async def run(*arguments):
        url = str(worker.url)
        return await orders(deployment, "replay", *arguments, HISTORY_DATABASE_URL=database_url, ORDERS_URL=url)

    return deployment, worker, database_url, run


async def stored(deployment, url):
    await deployment.caught_up(GROUP)
    await until(lambda: is_read(deployment, url), "stored", every=0.2)


async def written(deployment):
    """Records of `orders`: those that are replays, by the place of their original, and the others by their own."""
    originals, replays = {}, {}
    for r in await deployment.records(ORDERS.name):
        mark = mark_of(r.headers)
        if mark is None:
            originals[r.partition, r.offset] = r
        else:
            assert mark.place.topic == ORDERS.name
            replays.setdefault((mark.place.partition, mark.place.offset), []).append((mark.replays, r))
    return originals, replays


async def states(deployment, worker):
    names = [f"o-{number}" for number in range(5)] + ["rich"]
    found = {name: (await deployment.outcome(worker, name)) for name in names}
    return {name: (body["state"], body.get("reasons")) for name, body in found.items()}


async def test_failed_orders_are_replayed_byte_for_byte_and_stay_failed(shop, tmp_path):
    deployment, worker, url, run = shop
    before = await states(deployment, worker)
    selected = ("--state", "FAILED", "--reason", "available")

    code, said = await run(*selected, "--dry-run", "--limit", "1")
    assert code == 0, said
    assert "4 records to send" in said
    assert "nothing: 4 decided" in said
    assert "and 3 more" in said
    code, said = await run(*selected)
    assert (code, "--yes" in said) == (2, True), said
    assert (await written(deployment))[1] == {}

    code, said = await run(*selected, "--yes")
    assert (code, "4 of 4 records sent" in said) == (0, True), said
    originals, replays = await written(deployment)
    assert {originals[place].key for place in replays} == {b"o-1", b"o-2", b"o-3", b"o-4"}
    for place, [(times, again)] in replays.items():
        original = originals[place]
        assert again[:2] == (original.topic, original.partition)
        assert (again.key, again.value, again.timestamp) == (original.key, original.value, original.timestamp)
        assert times == 1
        kept = [header for header in original.headers if header[0] not in {"consumed-by", "also-consumed-by"}]
        marks = [("replayed-from", f"orders/{place[0]}/{place[1]}".encode()), ("replays", b"1")]
        assert [*again.headers] == [*kept, *marks]

    await stored(deployment, url)
    assert await states(deployment, worker) == before
    code, said = await run("o-1", "--yes", "--max-replays", "2")
    assert code == 0, said
    _, replays = await written(deployment)
    assert sorted(times for found in replays.values() for times, _ in found) == [1, 1, 1, 1, 2]
    await stored(deployment, url)
    code, said = await run("o-1", "--yes", "--max-replays", "2")
    assert code == 1
    assert "replayed 2 times already, --max-replays is 2" in said
    await other_selections(deployment, run, tmp_path / "ids")
    await failed_orders_are_decided_anew(deployment, worker, url, run)


async def failed_orders_are_decided_anew(deployment, worker, url, run):
    await deployment.stock(mug=3)
    code, said = await run("o-1", "o-2", "o-0", "--redecide", "--yes")
    assert (code, "2 of 2 records sent" in said) == (1, True), said
    assert "skipped: o-0: VALIDATED: cancel it instead" in said
    for id_ in ("o-1", "o-2"):
        decided = partial(is_attempt, deployment, worker, id_, 2)
        assert (await until(decided, f"{id_} decided anew", every=0.2))["state"] == "VALIDATED"
    await stored(deployment, url)
    code, said = await run("o-1", "--redecide", "--yes")
    assert (code, "VALIDATED: cancel it instead" in said) == (1, True), said
    for also in ((), ("--history",)):
        code, said = await orders(deployment, "audit", *also, HISTORY_DATABASE_URL=url, UNKNOWN_PRODUCTS="pass")
        assert code == 0, said


async def is_attempt(deployment, worker, id_, number):
    _, order = await deployment.get(worker, id_)
    return order if order.get("attempt") == number and order["state"] != "CREATED" else None


async def other_selections(deployment, run, ids):
    code, said = await run("--failed-service", "fraud", "--dry-run")
    assert (code, "rich" in said, "1 record to send" in said) == (0, True, True), said
    ids.write_text("o-0\n\no-77\n")
    code, said = await run("--ids", str(ids), "--stage", "verdict", "--stage", "VALIDATED", "--dry-run")
    assert (code, "4 records to send" in said) == (0, True), said
    assert "skipped: o-77: is not in the history" in said
    code, said = await run("--all", "--inputs", "--yes")
    assert (code, "warehouse-inventory has records already" in said) == (1, True), said
    code, said = await run("--all", "--inputs", "--dry-run", "--product", "pot")
    assert code == 2, said
    code, said = await run("--inputs", "--dry-run", "--product", "pot")
    assert (code, "2 records to send" in said) == (0, True), said
    code, said = await run("--stage", "STOCK", "--product", "mug", "--overwrite", "--yes")
    assert (code, "1 of 1 record sent" in said) == (0, True), said
    levels = await deployment.records("warehouse-inventory")
    assert [r.key for r in levels if ("replays", b"1") in r.headers] == [b"mug"]


async def test_a_killed_replay_goes_on_where_it_stopped(shop, tmp_path):
    deployment, _, url, run = shop
    file = tmp_path / "resume.jsonl"
    arguments = ("--all", "--yes", "--resume", str(file), "--rate", "2")
    mine = {"KAFKA_BOOTSTRAP_SERVERS": deployment.servers, "TOPIC_PREFIX": deployment.prefix}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ecosystem.cli", "replay", *arguments),
        env=os.environ | mine | {"HISTORY_DATABASE_URL": url},
        stdout=-1,
        stderr=-1,
    )
    await until(lambda: file.exists() and file.read_text().count('"sent"') >= 2, "some sent", every=0.02)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    assert len((await written(deployment))[1]) < 6

    # The crash came before the last batch was known to be sent, and as its line was being written.
    lines = file.read_text().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if '"sent"' in line)
    file.write_text("".join(lines[:last]) + lines[last][:5])
    code, said = await run("--state", "FAILED", "--yes", "--resume", str(file))
    assert (code, "belongs to another replay" in said) == (1, True), said
    code, said = await run(*arguments[:-2])
    assert code == 0, said
    _, replays = await written(deployment)
    assert sorted(len(found) for found in replays.values()) == [1] * 6
    code, said = await run(*arguments)
    assert (code, "0 records to send" in said, "6 records sent before" in said) == (0, True, True), said

    await ctrl_c_stops_after_a_batch(deployment, url, tmp_path / "other.jsonl")


async def ctrl_c_stops_after_a_batch(deployment, url, file):
    mine = {"KAFKA_BOOTSTRAP_SERVERS": deployment.servers, "TOPIC_PREFIX": deployment.prefix}
    command = ("replay", "--all", "--yes", "--rate", "0.5", "--resume", str(file), "--in-order")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ecosystem.cli", *command),
        env=os.environ | mine | {"HISTORY_DATABASE_URL": url},
        stdout=-1,
        stderr=-2,
    )
    await until(lambda: file.exists() and '"sent"' in file.read_text(), "some sent", every=0.02)
    process.send_signal(signal.SIGINT)
    said = (await process.communicate())[0].decode()
    assert process.returncode == 1, said
    assert f"--resume {file}" in said
    sent = [line for line in map(json.loads, file.read_text().splitlines()) if "sent" in line]
    again = sum([len(found) for found in (await written(deployment))[1].values()]) - 6
    assert 0 < again == sum([len(line["sent"]) for line in sent]) < 6
