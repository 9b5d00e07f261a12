"""The attribution of CPU time to the board and to metrics."""

import asyncio
import json
import time

import pytest

from bench.attribution import Attribution

STEP_S = 0.02


@pytest.fixture
async def attribution():
    loop, found = asyncio.get_running_loop(), Attribution()
    before = loop.get_task_factory()
    loop.set_task_factory(found.new_task)
    yield found
    loop.set_task_factory(before)


async def work():
    """Two steps that use the processor, and a rest between them."""
    for _ in range(2):
        end = time.thread_time() + STEP_S
        while time.thread_time() < end:
            pass
        await asyncio.sleep(STEP_S)
    return "done"


async def test_only_the_steps_of_the_board_are_counted(attribution):
    other = asyncio.create_task(work())
    assert await attribution.of_board(work)() == "done"
    assert await other == "done"
    assert 2 * STEP_S <= attribution.board_s < 3 * STEP_S


async def test_tasks_that_the_board_starts_are_counted_when_it_has_returned(attribution):
    async def start():
        return asyncio.create_task(work())

    task = await attribution.of_board(start)()
    await asyncio.create_task(work())
    assert await task == "done"
    assert 2 * STEP_S <= attribution.board_s < 3 * STEP_S


async def test_what_calls_the_board_inside_the_board_counts_once(attribution):
    await attribution.of_board(attribution.of_board(work))()
    assert 2 * STEP_S <= attribution.board_s < 3 * STEP_S


async def test_failures_and_cancellation_pass(attribution):
    async def fail():
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await attribution.of_board(fail)()
    task = asyncio.create_task(attribution.of_board(asyncio.sleep)(60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_metrics_and_the_whole_process_are_written(attribution, tmp_path):
    def write(seconds):
        time.sleep(seconds)

    attribution.restart()
    attribution.counting(write)(STEP_S)
    await work()
    attribution.write(tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["board"] == 0
    assert found["metrics"] >= STEP_S
    assert found["process"] >= 2 * STEP_S
