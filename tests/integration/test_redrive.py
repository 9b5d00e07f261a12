"""Dead letters are written back as they were, each of them once: after a crash, by two people, again and again."""

import asyncio
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from ecosystem.audit import audit
from ecosystem.cli.main import main
from ecosystem.clients.dead_letters import records
from ecosystem.clients.dead_letters import redrive as redriving
from ecosystem.clients.dead_letters.redrive import Superseded, redrive
from runtime.kafka.topics import ensure_topics, public_topics
from runtime.model.dead_letters import dead_letter
from runtime.model.records import Record
from schemas.messages import Order
from schemas.topics import ORDERS
from tests.commands import orders
from tests.workers import Deployment, until


def everything(letter):
    return True


@pytest.fixture
async def letters(deployment: Deployment):
    """Twenty dead letters of the topic `orders`, with keys, headers and values of all sorts."""
    await ensure_topics(deployment.settings(), public_topics())
    now = Order(id="o", customer_id=1, product="P", quantity=1, price=1).created_at
    headers = (("trace", b"7"), ("service", b"of its own"), ("null", None), ("trace", b"8"))
    for n in range(20):
        key = None if n % 5 == 4 else f"k{n}".encode()
        value = None if n % 7 == 6 and key else f"v{n} \xff".encode("latin-1")
        record = Record("orders", n % 4, n, 0, key, value, headers if n % 2 else ())
        write = dead_letter(record, "orders,fraud", "it is broken", now)
        await deployment.producer.send_and_wait(
            deployment.prefix + write.topic,
            write.value,
            key=write.key,
            partition=write.partition,
            headers=list(write.headers),
        )
    return deployment


async def set_aside(deployment: Deployment, record, service):
    write = dead_letter(record, service, "it is broken", datetime.now(UTC))
    topic, headers = deployment.prefix + write.topic, list(write.headers)
    await deployment.producer.send_and_wait(topic, write.value, write.key, partition=write.partition, headers=headers)


async def written(deployment: Deployment):
    return [(r.partition, r.key, r.value, tuple(r.headers)) for r in await deployment.records("orders")]


async def test_each_dead_letter_is_redriven_once_unchanged_but_for_the_counter(letters):
    settings = letters.settings()
    expected = sorted(
        [
            (found.from_partition, found.key, found.value, (*found.headers, ("redriven", b"1")))
            async for found in records.read_dead_letters(settings, ["orders"])
        ],
        key=str,
    )
    assert len(expected) == 20

    first = await redrive(settings, "orders", lambda letter: letter.from_partition == 1)
    rest = await redrive(settings, "orders", everything)
    again = await redrive(settings, "orders", everything)

    assert (len(first.written), len(rest.written), len(rest.written_before)) == (5, 15, 5)
    assert (len(again.written), len(again.written_before)) == (0, 20)
    assert sorted(await written(letters), key=str) == expected
    at = {(r.partition, r.offset): r for r in await letters.records("orders")}
    for where, note in (rest.written | rest.written_before).items():
        letter = await records.find_dead_letter(settings, *where)
        assert at[note.partition, note.offset].value == letter.value


CRASH = """
import asyncio, os, signal, sys
from aiokafka import AIOKafkaProducer
from ecosystem.clients.dead_letters import redrive
from runtime.common.settings import Settings

async def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

async def commit_and_die(producer):
    await commit(producer)
    await die()

redrive._MAX_BATCH = 5
commit = AIOKafkaProducer.commit_transaction
count = 0

async def second(producer):
    global count
    count += 1
    await (commit(producer) if count < 2 else {"before": die, "after": commit_and_die}[sys.argv[1]](producer))

AIOKafkaProducer.commit_transaction = second
asyncio.run(redrive.redrive(Settings(), "orders", lambda letter: True))
"""


async def test_a_record_dead_lettered_by_several_services_is_redriven_once(deployment: Deployment):
    settings = deployment.settings()
    await ensure_topics(settings, public_topics())
    services = ("orders", "fraud", "details")
    same = [Record("orders", 1, n, 0, b"k", b"v", ()) for n in range(3)]
    for service in services:
        for record in same:
            await set_aside(deployment, record, service)

    first = await redrive(settings, "orders", lambda letter: letter.from_offset == 0)
    rest = await redrive(settings, "orders", everything)
    again = await redrive(settings, "orders", everything)

    assert [(len(o.written), len(o.written_before)) for o in (first, rest, again)] == [(1, 2), (2, 7), (0, 9)]
    assert await written(deployment) == [(1, b"k", b"v", (("redriven", b"1"),))] * 3

    # The topic was made anew: another record at that offset. And what was fused never had one.
    anew, fused = same[0]._replace(value=b"w"), same[0]._replace(offset=-1)
    for record in (anew, fused, fused):
        await set_aside(deployment, record, "orders")
    assert len((await redrive(settings, "orders", everything)).written) == 3


@pytest.mark.parametrize(("moment", "left"), [("before", 15), ("after", 10)])
async def test_a_crash_during_a_redrive_leaves_no_partial_write(letters, moment, left):
    settings = letters.settings()
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "TOPIC_PREFIX": settings.topic_prefix,
    }
    command = [sys.executable, "-c", CRASH, moment]
    ended = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr

    outcome = await redrive(settings, "orders", everything)

    assert (len(outcome.written), len(outcome.written_before)) == (left, 20 - left)
    assert len(await written(letters)) == 20


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_an_interrupted_redrive_goes_on_and_writes_none_twice(letters, how):
    command = ["dead-letters", "redrive", "orders", "--all", "--rate", "4", "--bootstrap", letters.servers]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "ecosystem.cli", *command),
        env=os.environ | {"TOPIC_PREFIX": letters.prefix},
        stdout=-1,
        stderr=-2,
    )
    await until(lambda: written(letters), "the first ones", every=0.2)
    process.send_signal(how)
    said, _ = await process.communicate()
    done = len(await written(letters))
    assert 0 < done < 20
    if how == signal.SIGINT:
        assert process.returncode == 1
        assert f"Interrupted: {done} of 20 written back. The same command writes the rest" in said.decode()

    code, rest = await orders(letters, *command[:-4])

    assert code == 0, rest
    assert f"{20 - done} written back, {done} were before" in rest
    assert len(await written(letters)) == 20


async def test_a_later_redrive_fences_the_earlier_and_writes_each_record_once(letters, monkeypatch):
    settings = letters.settings()
    sent, finished = asyncio.Event(), asyncio.Event()
    send, calls = redriving._send, itertools.count(1)

    async def slow(producer, messages):
        """The first one stops in its third transaction: messages are written, their notes are not."""
        offsets = await send(producer, messages)
        if not sent.is_set() and next(calls) == 5:
            sent.set()
            await finished.wait()
        return offsets

    monkeypatch.setattr(redriving, "_MAX_BATCH", 3)
    monkeypatch.setattr(redriving, "_send", slow)
    first = asyncio.create_task(redrive(settings, "orders", everything))
    await sent.wait()
    second = await redrive(settings, "orders", everything)
    finished.set()

    with pytest.raises(Superseded, match="6 dead letters were written back until then"):
        await first
    assert (len(second.written), len(second.written_before)) == (14, 6)
    assert len(await written(letters)) == 20


async def test_a_repaired_record_is_processed_and_an_unrepaired_one_dead_lettered_again(deployment: Deployment):
    def broken(hosted):
        def fail(order, ctx):
            raise RuntimeError("no luck today")

        service = hosted.service
        if service.name != "orders":
            return hosted
        inputs = [dataclasses.replace(i, processor=fail) if i.topic is ORDERS else i for i in service.inputs]
        return dataclasses.replace(hosted, service=dataclasses.replace(service, inputs=tuple(inputs)))

    worker = await deployment.start(wrap=broken)
    await deployment.stock(MUG=5)
    order = Order(id="o1", customer_id=1, product="MUG", quantity=2, price=1)
    await deployment.send(ORDERS, order)
    await deployment.send_raw("orders", b"o2", b"{")
    await until(lambda: found(deployment, 2), "dead letters")
    await deployment.stop(worker)

    worker = await deployment.start()
    outcome = await redrive(deployment.settings(), "orders", everything)
    assert len(outcome.written) == 2

    assert (await deployment.outcome(worker, "o1"))["state"] == "VALIDATED"
    again = await until(lambda: found(deployment, 3), "the one that fails again")
    assert [letter.key for letter in again].count(b"o2") == 2
    report = await audit(deployment.settings())
    assert report.violations == []
    assert report.counts["reserved"] == 2  # the inventory, which had decided the order, knew it again
    assert report.counts["posted again"] == 1


async def found(deployment: Deployment, count):
    """The dead letters, once there are so many."""
    result = [letter async for letter in records.read_dead_letters(deployment.settings(), ["orders"])]
    return result if len(result) == count else None


class Result(NamedTuple):
    exit_code: int
    output: str


async def test_dead_letters_are_listed_shown_and_redriven_by_commands(letters, monkeypatch):
    await letters.producer.send_and_wait(
        letters.prefix + ORDERS.dead_letters, b"?", partition=3, headers=[("not", b"ours")]
    )
    big = Record("orders", 0, 99, 0, b"big", b"x" * 3_000_000)
    write = dead_letter(big, "orders", "too large", Order.model_validate_json(SAMPLE).created_at)
    cut = await letters.producer.send_and_wait(
        letters.prefix + write.topic, write.value, key=write.key, partition=0, headers=list(write.headers)
    )
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", letters.servers)
    monkeypatch.setenv("TOPIC_PREFIX", letters.prefix)

    async def run(*arguments):
        if arguments[0] != "redrive":
            return await asyncio.to_thread(CliRunner().invoke, main, ["dead-letters", *arguments])
        return Result(*await orders(letters, "dead-letters", *arguments))  # it handles signals

    result = await run("list", "--limit", "3")
    assert result.exit_code == 0, result.output
    assert "orders: 21 dead letters, the latest 3" in result.output
    assert "1 messages of other producers" in result.output
    result = await run("list", "orders", "--json")
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert len(rows) == 21
    assert {row["service"] for row in rows} == {"orders,fraud", "orders"}

    result = await run("show", "orders", "1@0")
    assert result.exit_code == 0, result.output
    assert "from: orders partition 1, offset 1" in result.output
    assert "header service: of its own" in result.output
    assert "value: hex 76 31 20 ff" in result.output
    result = await run("show", "orders.dead-letters", "1@77")
    assert result.exit_code == 1
    assert "there is no dead letter orders.dead-letters 1@77" in result.output
    result = await run("show", "orders", "3@5")
    assert "is not a dead letter: it does not end in the headers" in result.output

    result = await run("redrive", "orders", "1@0", "2@1")
    assert result.exit_code == 0, result.output
    assert "orders.dead-letters 1@0 written back to orders 1@0" in result.output
    assert "2 written back, 0 were before" in result.output
    result = await run("show", "orders", "1@0")
    assert "written back: 2" in result.output
    result = await run("redrive", "orders", "1@0", "1@77")
    assert result.exit_code == 1
    assert "orders.dead-letters 1@0 was written back before" in result.output
    assert "no such dead letter: 1@77" in result.output
    result = await run("redrive", "orders", "--all", "--service", "fraud")
    assert result.exit_code == 0, result.output
    assert "18 written back, 2 were before" in result.output
    result = await run("redrive", "orders", "--all")
    assert result.exit_code == 1
    assert (
        f"orders.dead-letters 0@{cut.offset} cannot be written back: it was truncated: of 3000003 bytes"
        in result.output
    )
    assert len(await written(letters)) == 20


SAMPLE = Order(id="o", customer_id=1, product="P", quantity=1, price=1).to_json()
