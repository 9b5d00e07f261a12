"""The end of a worker's process: nothing that still runs keeps it from exiting."""

import asyncio

import pytest

from runtime.worker import process


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(process, "REMAINING_TASKS_S", 0.2)


async def stubborn():
    """Does not end when it is cancelled, but for the second time."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()


async def closing():
    """Starts another task while it cleans up, as a client does that closes its connections."""
    try:
        await asyncio.Event().wait()
    finally:
        started.append(asyncio.create_task(stubborn()))


started: list = []


@pytest.mark.parametrize(("left_behind", "unfinished"), [([], 0), ([stubborn], 1), ([closing], 1), ([closing] * 3, 3)])
def test_tasks_that_do_not_end_are_counted_also_those_that_cancelled_ones_start(left_behind, unfinished):
    counted = []

    async def end():
        tasks = [asyncio.create_task(task()) for task in left_behind]
        await asyncio.sleep(0)
        counted.append(await process.cancel_remaining_tasks())
        return tasks

    asyncio.run(end())
    assert counted == [unfinished]
