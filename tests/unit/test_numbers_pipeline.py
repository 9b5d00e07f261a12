"""The numbers pipeline around its stages: generator, settings, rows of the history, re-submission, commands, README."""

import asyncio
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ecosystem.embedded.locks import exclusive_lock
from ecosystem.replay.records import Mark, Place
from examples.numbers_pipeline import __main__ as commands
from examples.numbers_pipeline import generator, history, output, stages
from examples.numbers_pipeline.queries import FinishedInput, StoredRecord
from examples.numbers_pipeline.resubmission import again, record_for
from examples.numbers_pipeline.settings import NumbersSettings
from examples.numbers_pipeline.stages import STAGES, Numbers
from runtime.model.records import ALSO_CONSUMED_BY, CONSUMED_BY, REPLAYED_FROM, REPLAYS
from runtime.model.sink import SinkRecord

ROOT = Path(__file__).parents[2]
README = (Path(stages.__file__).parent / "README.md").read_text("utf-8")
AT = datetime(2026, 11, 29, tzinfo=UTC)
BYTES = st.none() | st.binary(max_size=20)


def command(*arguments, **variables):
    return CliRunner().invoke(commands.main, arguments, env=variables, prog_name="numbers")


# Generator


def made(**changes):
    async def collect():
        return [message async for message in generator.generate(NumbersSettings(**changes), Random(1))]

    return asyncio.run(collect())


def test_the_generator_makes_as_many_inputs_of_the_size_as_are_asked_for():
    messages = made(numbers_count=20, numbers_size=7, numbers_rate=200)
    assert [len(message.numbers) for message in messages] == [7] * 20
    assert len({message.id for message in messages}) == 20
    assert {message.id.split("-")[1] for message in messages} == {str(number) for number in range(1, 21)}
    assert not {m.id for m in made(numbers_count=1)} & {m.id for m in made(numbers_count=1)}, "another run"


@given(st.floats(0.01, 200), st.floats(0, 1), st.integers())
def test_pauses_vary_by_the_jitter_around_the_rate(rate, jitter, seed):
    settings, random = NumbersSettings(numbers_rate=rate, numbers_jitter=jitter), Random(seed)
    pauses = [generator.pause_s(settings, random) * rate for _ in range(20)]
    assert all(1 - jitter - 1e-9 <= pause <= 1 + jitter + 1e-9 for pause in pauses)
    assert (len(set(pauses)) == 1) == (jitter == 0) or jitter < 1e-9


def test_an_input_gets_an_id_unless_it_has_one():
    text = '{"numbers": [76452, 61211234, 8243724]}'
    first, second = generator.with_id(text), generator.with_id(text)
    assert first.numbers == (76452, 61211234, 8243724)
    assert first.id != second.id
    assert Numbers.from_json(first.to_json()) == Numbers(id=first.id, numbers=first.numbers)
    assert generator.with_id('{"id": "mine", "numbers": [1]}').id == "mine"


# History


def record(topic="start", key=b"a-1", value=b'{"id": "a-1", "numbers": [3, 1]}', headers=(), timestamp_ms=1000):
    return SinkRecord(topic, 2, 5, 7, timestamp_ms, key, value, headers)


def test_a_record_is_stored_as_it_is_and_an_input_with_its_time():
    at = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    headers = (("a", b"\xff"), ("b", None))
    rows = history.prepare([record(headers=headers), record("squares")])
    row = (5, "start", 2, 7, "a-1", at, b"a-1", b'{"id": "a-1", "numbers": [3, 1]}', [b"a", b"\xff", b"b", None])
    assert rows.records[0] == row
    assert rows.records[1][1:3] == ("squares", 2)
    assert rows.inputs == [("a-1", at, "[3, 1]")]


@given(BYTES, BYTES, st.integers(-(2**63), 2**63 - 1), st.lists(st.tuples(st.text(max_size=3), BYTES), max_size=3))
def test_any_record_becomes_a_row(key, value, timestamp_ms, headers):
    stored = record(key=key, value=value, timestamp_ms=timestamp_ms, headers=headers)
    [row] = history.prepare([stored]).records
    [raw] = history.prepare_raw(stored).records
    assert (row[6], row[7]) == (key, value)
    assert raw == (*row[:4], None, *row[5:])


# Re-submission


def stored(topic, offset=0, headers=()):
    return StoredRecord(topic, 2, offset, AT, b"a-1", b'{"id":"a-1"}', headers)


def test_a_record_is_submitted_again_byte_for_byte_and_says_where_it_lies():
    headers = [("trace", b"1"), (CONSUMED_BY, b"digits+sort"), (ALSO_CONSUMED_BY, b"x"), ("trace", None)]
    original = stored("sorted", 9, headers)
    write = again(original, [original])
    assert write[:4] == ("sorted", 2, b"a-1", b'{"id":"a-1"}')
    marks = [(REPLAYED_FROM, b"sorted/2/9"), (REPLAYS, b"1")]
    assert write.headers == [("trace", b"1"), ("trace", None), *marks]
    others = [(REPLAYED_FROM, b"sorted/2/8"), (REPLAYS, b"7")]
    records = [original, stored("sorted", 10, marks), stored("digit-sums", 4, marks), stored("sorted", 11, others)]
    assert again(original, records).headers[-1] == (REPLAYS, b"2")


def test_the_first_record_that_a_stage_has_got_is_submitted_again():
    records = [stored("start"), stored("sorted", 4), stored("sorted", 8, [(REPLAYED_FROM, b"sorted/2/4")])]
    named = {stage.name: stage for stage in STAGES}
    assert str(record_for(named["digits"], records).place) == "sorted/2/4"
    assert str(record_for(named["sort"], records).place) == "start/2/0"
    assert record_for(named["square"], records) is None


# Output


def test_a_finished_input_is_a_line():
    result = b'{"id": "a-1", "numbers": [9]}'
    assert output.line(FinishedInput("a-1", "[3, 20]", result, 0.012, None)) == "a-1         3 20 → 9   12 ms"
    long = output.line(FinishedInput("a-1", str([1] * 9), result, 0.012, Mark(Place("sorted", 1, 2), 1)))
    assert long == "a-1         1 1 1 1 1 1 … → 9   submitted again from sorted/1/2"


# Commands and their errors


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("NUMBERS_RATE", "fast", "must be a number such as"),
        ("NUMBERS_RATE", "0", "must be above 0"),
        ("NUMBERS_RATE", "1e9", "must be"),
        ("NUMBERS_COUNT", "-1", "must be at least 0"),
        ("NUMBERS_COUNT", "2.5", "must be a whole number"),
        ("NUMBERS_SIZE", "0", "must be at least 1"),
        ("NUMBERS_SIZE", "", "must be a whole number"),
        ("NUMBERS_JITTER", "1.1", "must be at most 1"),
        ("PARTITIONS", "0", "must be at least 1"),
    ],
)
def test_a_wrong_variable_is_named_with_its_remedy_before_anything_starts(name, value, remedy, monkeypatch):
    monkeypatch.setattr(commands, "System", None)
    result = command("run", **{name: value})
    assert result.exit_code == 2
    assert f"Error: the environment variable {name} {remedy}" in result.output


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("76452", "INPUT must be a JSON object"),
        ("{", "INPUT must be JSON"),
        ("{}", "numbers is missing"),
        ('{"numbers": ["1"]}', "numbers.0 must be a whole number"),
        ('{"numbers": [9223372036854775808]}', "numbers.0 must be at most"),
        ('{"numbers": [1], "id": ""}', "id must not be empty"),
    ],
)
def test_an_input_that_is_none_is_refused_with_the_field(text, reason):
    result = command("submit", text)
    assert result.exit_code == 2
    assert f"Error: {reason}" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("timings",),
        ("history", "--id", "a-1"),
        ("resubmit", "--stage", "square", "--id", "a-1"),
        ("submit", '{"numbers": [1]}'),
    ],
)
def test_commands_say_how_to_start_a_pipeline_that_does_not_run(arguments, tmp_path):
    result = command(*arguments, ORDERS_DATA=str(tmp_path))
    assert result.exit_code == 1
    assert "start it by `make numbers`" in result.output


def test_commands_say_what_to_check_where_no_server_answers(monkeypatch):
    monkeypatch.setattr(history, "_PATIENCE_S", 0.5)
    url = "postgresql://numbers@127.0.0.1:1/numbers"
    reading = command("timings", NUMBERS_DATABASE_URL=url)
    assert reading.exit_code == 1
    assert "is NUMBERS_DATABASE_URL right" in reading.output
    servers = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "NUMBERS_DATABASE_URL": url}
    writing = command("submit", '{"numbers": [1]}', **servers)
    assert writing.exit_code == 1
    assert "is KAFKA_BOOTSTRAP_SERVERS right" in writing.output


def test_a_stage_that_does_not_exist_is_refused_with_those_that_do():
    result = command("resubmit", "--stage", "cube", "--id", "a-1")
    assert result.exit_code == 2
    assert "'sort', 'digits', 'square', 'accumulate', 'total'" in result.output


def test_a_second_pipeline_on_the_same_data_is_refused(tmp_path):
    with exclusive_lock(tmp_path / "numbers" / "lock"):
        result = command("run", ORDERS_DATA=str(tmp_path))
    assert result.exit_code == 1
    assert "The pipeline runs already, as process" in result.output


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    result = command("run", ORDERS_DATA=str(tmp_path / "file"))
    assert result.exit_code == 1
    assert "set ORDERS_DATA to a folder that you can write to" in result.output


# README


def test_the_readme_has_the_settings_of_the_generator():
    rows = re.findall(r"^\| `(NUMBERS_\w+)` \| `(.+?)` \| (.+) \|$", README, re.MULTILINE)
    fields = [
        (n.upper(), str(f.default), f.description)
        for n, f in NumbersSettings.model_fields.items()
        if f.default is not None
    ]
    assert rows == fields


def test_the_readme_has_commands_and_stages_that_exist():
    named = re.findall(r"^\$ \$P ([a-z]+)", README, re.MULTILINE)
    assert set(named) == set(commands.main.commands) - {"run", "worker"}
    assert re.search(r'^\$ P="\.venv/bin/python -m examples\.numbers_pipeline"$', README, re.MULTILINE)
    for name in re.findall(r"--stage (\S+)", README):
        assert name in {stage.name for stage in STAGES}
    boxes = dict(re.findall(r"(\w+)\[\(([\w-]+)\)\]", README))
    assert [topic.name for topic in stages.TOPICS] == list(boxes.values())
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (Path(stages.__file__).parent / link).exists(), link


def test_the_example_is_a_command_of_its_own():
    result = subprocess.run(
        [sys.executable, "-m", "examples.numbers_pipeline", "-h"], cwd=ROOT, capture_output=True, text=True
    )
    assert "Usage: python -m examples.numbers_pipeline" in result.stdout
