"""Waits that share a timeout end together when it is shortened."""

import asyncio

import pytest

from runtime.common.deadlines import SharedTimeout


async def _wait(timeout):
    async with timeout.limit():
        await asyncio.Event().wait()


async def test_a_wait_times_out():
    timeout = SharedTimeout(0.05)
    with pytest.raises(TimeoutError):
        await _wait(timeout)
    assert len(timeout) == 0


async def test_shortening_ends_present_and_future_waits():
    timeout = SharedTimeout(3600)
    early = asyncio.create_task(_wait(timeout))
    await asyncio.sleep(0)
    timeout.shorten(0.05)
    async with asyncio.timeout(20):
        for waiting in (early, _wait(timeout)):
            with pytest.raises(TimeoutError):
                await waiting
    assert len(timeout) == 0


async def test_shortening_never_extends_a_wait():
    timeout = SharedTimeout(0.05)
    waiting = asyncio.create_task(_wait(timeout))
    await asyncio.sleep(0)
    timeout.shorten(3600)
    async with asyncio.timeout(20):
        with pytest.raises(TimeoutError):
            await waiting


async def test_a_wait_that_ends_in_time_leaves_nothing_behind():
    timeout = SharedTimeout(3600)
    async with timeout.limit():
        assert len(timeout) == 1
    timeout.shorten(0)
    assert len(timeout) == 0
