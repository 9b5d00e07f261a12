"""The numbers pipeline in memory: its stages, together and apart, and what they make of any numbers."""

import re
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecosystem.replay.records import Mark, Place, mark_of
from examples.numbers_pipeline import stages
from examples.numbers_pipeline.stages import DIGIT_SUMS, FINISH, RUNNING_TOTALS, SORTED, SQUARES, STAGES, START, Numbers
from runtime.model.records import REPLAYED_FROM
from runtime.model.service import Service
from runtime.testing import TopologyTestDriver
from tests.unit.test_imports import DOOR, imports

FOLDER = Path(stages.__file__).parent
NUMBERS = (76452, 61211234, 8243724)
INT64 = st.integers(-(2**63), 2**63 - 1)


def by_topic(driver):
    return {topic.name: [list(m.numbers) for m in driver.values(topic)] for topic in stages.TOPICS}


@pytest.mark.parametrize("apart", [False, True])
def test_the_docstrings_say_what_becomes_of_the_input(apart):
    driver = TopologyTestDriver(*STAGES, apart=apart)
    driver.send(START, Numbers(id="a-1", numbers=NUMBERS))
    assert by_topic(driver) == {
        "start": [[76452, 61211234, 8243724]],
        "sorted": [[76452, 8243724, 61211234]],
        "digit-sums": [[24, 30, 20]],
        "squares": [[576, 900, 400]],
        "running-totals": [[576, 1476, 1876]],
        "finish": [[3928]],
    }
    texts = [i.processor.__doc__ for stage in STAGES for i in stage.inputs]
    for text, topic in zip(texts, stages.TOPICS[1:], strict=True):
        [made] = by_topic(driver)[topic.name]
        assert ", ".join(map(str, made)) in text


@given(st.lists(INT64, min_size=1, max_size=20), st.booleans())
def test_each_stage_does_its_arithmetic(numbers, apart):
    driver = TopologyTestDriver(*STAGES, apart=apart)
    driver.send(START, Numbers(id="a-1", numbers=numbers))
    [result], digits = driver.values(FINISH), [sum(int(c) for c in str(n) if c != "-") for n in sorted(numbers)]
    [in_order], [sums], [squares], [totals] = map(driver.values, (SORTED, DIGIT_SUMS, SQUARES, RUNNING_TOTALS))
    assert list(in_order.numbers) == sorted(numbers)
    assert list(sums.numbers) == digits
    assert list(squares.numbers) == [n**2 for n in digits]
    assert list(totals.numbers) == list(accumulate(n**2 for n in digits))
    assert result == Numbers(id="a-1", numbers=[sum((len(digits) - at) * n**2 for at, n in enumerate(digits))])


@given(st.lists(st.lists(INT64, min_size=1, max_size=3), max_size=20), st.booleans())
def test_each_input_passes_each_stage_once(inputs, apart):
    driver = TopologyTestDriver(*STAGES, apart=apart)
    driver.send(START, *(Numbers(id=f"a-{number}", numbers=numbers) for number, numbers in enumerate(inputs)))
    for topic in stages.TOPICS:
        assert sorted(m.id for m in driver.values(topic)) == sorted(f"a-{number}" for number in range(len(inputs)))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"numbers": [1]}', b"id is missing"),
        (b'{"id": "a-1", "numbers": []}', b"numbers"),
        (b'{"id": "a-1", "numbers": [1.5]}', b"numbers.0 must be a whole number"),
        (b"76452", b"must be a JSON object"),
    ],
)
def test_an_input_that_is_no_message_is_dead_lettered(value, reason):
    driver = TopologyTestDriver(*STAGES)
    driver.send_raw(START, b"a-1", value)
    [letter] = driver.records(START.dead_letters)
    assert (letter.value, reason in dict(letter.headers)["error"]) == (value, True)
    assert not driver.records(SORTED.name)


def test_a_record_that_is_submitted_again_passes_the_later_stages_alone():
    driver = TopologyTestDriver(*STAGES)
    driver.send(START, Numbers(id="a-1", numbers=NUMBERS))
    [record] = driver.records(DIGIT_SUMS.name)
    driver.send_raw(DIGIT_SUMS, record.key, record.value, (REPLAYED_FROM, b"digit-sums/0/0"))
    counts = {topic.name: len(driver.records(topic.name)) for topic in stages.TOPICS}
    assert counts == {"start": 1, "sorted": 1, "digit-sums": 2, "squares": 2, "running-totals": 2, "finish": 2}
    assert {m.numbers for m in driver.values(FINISH)} == {(3928,)}
    assert [mark_of(r.headers) for r in driver.records(FINISH.name)] == [None, Mark(Place("digit-sums", 0, 0), 1)]


def test_the_sixth_stage_of_the_exercise_works():
    readme = (FOLDER / "README.md").read_text("utf-8")
    changed = (FOLDER / "stages.py").read_text("utf-8")
    patch = re.search(r"```diff\n(.*?)```", readme, re.DOTALL)[1]
    for hunk in patch.strip().split("\n\n"):
        lines = hunk.splitlines()
        old = "\n".join(line[1:] for line in lines if line[0] in " -")
        new = "\n".join(line[1:] for line in lines if line[0] in " +")
        assert changed.count(old) == 1, old
        changed = changed.replace(old, new)
    module: dict[str, Any] = {"__name__": "sixth"}
    exec(compile(changed, "stages.py", "exec"), module)
    driver = TopologyTestDriver(*module["STAGES"])
    driver.send(module["START"], module["Numbers"](id="a-1", numbers=NUMBERS))
    assert len(module["STAGES"]) == 6
    assert [topic.name for topic in module["TOPICS"]][-2:] == ["totals", "finish"]
    assert [list(m.numbers) for m in driver.values(module["FINISH"])] == [[3928 % 97]]


def test_stages_and_history_use_the_public_door_of_the_runtime_alone():
    for name in ("stages", "history", "models", "settings", "generator"):
        used = {module for module in imports(FOLDER / f"{name}.py") if module.startswith("runtime.")}
        assert used <= DOOR, name
    assert all(isinstance(stage, Service) for stage in STAGES)
