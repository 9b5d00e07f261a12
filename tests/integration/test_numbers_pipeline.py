"""The numbers pipeline as its user meets it: killed by kill -9, started again, a record submitted again, Ctrl-C."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager

import asyncpg

from ecosystem.clients.reader import Reader
from examples.numbers_pipeline import system
from examples.numbers_pipeline.stages import DIGIT_SUMS, FINISH, RUNNING_TOTALS, SORTED, SQUARES, STAGES, START, TOPICS
from runtime.model.records import REPLAYED_FROM
from runtime.testing import TopologyTestDriver
from tests.integration.test_up import Up, alive, children_of
from tests.workers import until

FINISHED = re.compile(r"^([0-9a-f]{6}-\d+) .* → \d+ ", re.MULTILINE)
COMMAND = (sys.executable, "-m", "examples.numbers_pipeline")
IN_ORDER = [topic.name for topic in TOPICS]


def environment(data, **variables):
    fast = {"SESSION_TIMEOUT_S": "3", "HEARTBEAT_INTERVAL_S": "0.5", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, "ORDERS_DATA": str(data), "NUMBERS_RATE": "50", **fast, **variables}


@contextmanager
def started(data, *arguments, **variables):
    """Runs the pipeline, and ends it with Ctrl-C."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen([*COMMAND, *arguments], env=environment(data, **variables), text=True, **pipes) as process:
        running = Up(process)
        try:
            yield running
        finally:
            process.send_signal(signal.SIGINT)
            running.end()


def finished(running):
    """Ids of the inputs that the command has called finished."""
    return FINISHED.findall("".join(running.said))


async def say(data, *arguments):
    """The output of a command beside the pipeline that runs."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = await asyncio.create_subprocess_exec(*COMMAND, *arguments, env=environment(data), **pipes)
    said = (await process.communicate())[0].decode()
    return process.returncode, said


async def records():
    """All records of all topics, those of dead letters included."""
    names = [name for topic in TOPICS for name in (topic.name, topic.dead_letters)]
    async with Reader(system.find(), names) as reader:
        return [r async for r in reader.records(from_beginning=True, follow=False, stop=asyncio.Event())]


def ids(found, topic):
    return Counter(record.key.decode() for record in found if record.topic == topic.name)


def finish_of(numbers):
    """What the stages make of an input, in memory."""
    driver = TopologyTestDriver(*STAGES)
    driver.send(START, numbers)
    return {topic.name: driver.values(topic) for topic in TOPICS}


async def stored():
    """Rows of `records` without their times, and of `inputs1`."""
    connection = await asyncpg.connect(json.loads((system.home() / "running.json").read_text())["database"])
    try:
        rows = await connection.fetch('SELECT topic, partition, "offset", key, value, headers FROM records')
        inputs = await connection.fetch("SELECT id, numbers, made_at FROM inputs1")
    finally:
        await connection.close()
    return rows, {row["id"]: (json.loads(row["numbers"]), row["made_at"].timestamp()) for row in inputs}


async def check(again=()):
    """Finds each input once at each stage and in the history, but for records that were submitted again.

    Returns the ids. Each of `again` is an id with the topics in which it is twice.
    """

    async def complete():
        found = await records()
        return found if ids(found, FINISH).keys() == ids(found, START).keys() else None

    found = await until(complete, "all inputs finished")
    inputs = {r.key.decode(): START.model.from_json(r.value) for r in found if r.topic == START.name}
    for topic in TOPICS:
        wanted = Counter(dict.fromkeys(inputs, 1))
        wanted.update(id_ for id_, topics in again if topic.name in topics)
        assert ids(found, topic) == wanted, topic.name
    results = {id_: finish_of(numbers) for id_, numbers in inputs.items()}
    for record in found:
        assert [START.model.from_json(record.value)] == results[record.key.decode()][record.topic]

    def row(r):
        flat = [part for name, value in r.headers for part in (name.encode(), value)]
        return (r.topic, r.partition, r.offset, r.key, r.value, flat)

    async def equal():
        rows, _ = await stored()
        return sorted(map(tuple, rows)) == sorted(map(row, found))

    await until(equal, "the history has every record once")
    _, kept = await stored()
    times = {r.key.decode(): r.timestamp_ms for r in reversed(found) if r.topic == START.name}
    assert {id_: numbers for id_, (numbers, _) in kept.items()} == {id_: list(m.numbers) for id_, m in inputs.items()}
    assert {id_: round(1000 * at) for id_, (_, at) in kept.items()} == times
    return list(inputs)


async def test_each_input_passes_each_stage_once_although_everything_is_killed(tmp_path, monkeypatch):
    data = tmp_path / "a folder"
    monkeypatch.setenv("ORDERS_DATA", str(data))
    with started(data) as first:
        await until(lambda: len(finished(first)) >= 40, "inputs that have finished")
        children = children_of(first)
        first.process.kill()
        first.process.wait()
    await until(lambda: not alive(children), "Kafka, PostgreSQL and the worker are gone with the command")
    code, said = await say(data, "timings")
    assert (code, "start it by `make numbers`" in said) == (1, True)

    with started(data, NUMBERS_COUNT="30", NUMBERS_SIZE="4") as second:
        await asyncio.to_thread(second.heard, "All inputs have finished")
        inputs = await check()
        assert len(inputs) >= 70
        [*_, last] = finished(second)

        code, said = await say(data, "resubmit", "--stage", "square", "--id", last)
        assert code == 0, said
        place = re.match(r"digit-sums/\d/\d+(?= submitted again to digit-sums)", said)[0]
        await until(lambda: finished(second).count(last) == 2, "the input has finished again")
        later = {topic.name for topic in (DIGIT_SUMS, SQUARES, RUNNING_TOTALS, FINISH)}
        await check([(last, later)])
        found = await records()
        marked = [r.topic for r in found if dict(r.headers).get(REPLAYED_FROM) == place.encode()]
        assert sorted(marked) == sorted(later), "the record, and all that follows from it"
        original, copy = [r for r in found if r.topic == DIGIT_SUMS.name and r.key.decode() == last]
        assert (dict(original.headers).get(REPLAYED_FROM), dict(copy.headers)[REPLAYED_FROM]) == (None, place.encode())
        assert (copy.key, copy.value, copy.partition) == (original.key, original.value, original.partition)
        assert place == f"digit-sums/{original.partition}/{original.offset}"

        _, said = await say(data, "history", "--id", last)
        topics = [line.split()[0] for line in said.splitlines()]
        assert topics == [*IN_ORDER, *IN_ORDER[IN_ORDER.index(DIGIT_SUMS.name) :]]
        assert said.count(SORTED.name) == 2, "its name, and its place"
        assert said.count(f"submitted again from {place}") == len(later)

        _, said = await say(data, "timings")
        counts = dict(re.findall(r"^│ ([a-z ]+?) +│ +(\d+) │(?: +\d+ ms │){4}$", said, re.MULTILINE))
        assert counts == {**{s.name: str(len(inputs)) for s in STAGES}, "start to finish": str(len(inputs))}

        code, said = await say(data, "resubmit", "--stage", "square", "--id", "nobody")
        assert (code, "The history has no input nobody" in said) == (1, True)
        code, said = await say(data, "submit", '{"id": "mine", "numbers": [76452, 61211234, 8243724]}')
        assert (code, said) == (0, "mine\n")
        await asyncio.to_thread(second.heard, r"^mine +76452 61211234 8243724 → 3928 ")
        children = children_of(second)
    assert second.process.returncode == 0, "".join(second.said)
    assert "".join(second.said).endswith("Stopped.\n")
    assert not alive(children)

    with started(data, "run", "--apart", NUMBERS_COUNT="10") as apart:
        await asyncio.to_thread(apart.heard, "All inputs have finished")
        assert len(await check([(last, later)])) == len(inputs) + 11
    assert apart.process.returncode == 0
