import asyncio

import pytest

from runtime.common.deadlines import SharedTimeout


async def _wait(patience):
    async with patience.limit():
        await asyncio.Event().wait()


async def test_each_waits_as_long_as_is_set():
    patience = SharedTimeout(0.05)
    with pytest.raises(TimeoutError):
        await _wait(patience)
    assert len(patience) == 0


async def test_who_waits_already_and_who_comes_later_are_cut_short():
    patience = SharedTimeout(3600)
    early = asyncio.create_task(_wait(patience))
    await asyncio.sleep(0)
    patience.shorten(0.05)
    async with asyncio.timeout(20):
        for waiting in (early, _wait(patience)):
            with pytest.raises(TimeoutError):
                await waiting
    assert len(patience) == 0


async def test_nobody_waits_longer_for_a_hurry():
    patience = SharedTimeout(0.05)
    waiting = asyncio.create_task(_wait(patience))
    await asyncio.sleep(0)
    patience.shorten(3600)
    async with asyncio.timeout(20):
        with pytest.raises(TimeoutError):
            await waiting


async def test_what_is_done_in_time_leaves_nothing_behind():
    patience = SharedTimeout(3600)
    async with patience.limit():
        assert len(patience) == 1
    patience.shorten(0)
    assert len(patience) == 0
