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


class Late(Exception):
    pass


async def test_a_bounded_future_fails_in_time_and_leaves_nothing_behind():
    timeout = SharedTimeout(0.05)
    future = asyncio.get_running_loop().create_future()
    timeout.bound(future, Late)
    async with asyncio.timeout(20):
        with pytest.raises(Late):
            await future
    await asyncio.sleep(0)
    assert len(timeout) == 0


async def test_shortening_ends_bounded_futures_present_and_future_ones():
    timeout, loop = SharedTimeout(3600), asyncio.get_running_loop()
    futures = [loop.create_future(), loop.create_future()]
    timeout.bound(futures[0], Late)
    timeout.shorten(0.05)
    timeout.bound(futures[1], Late)
    async with asyncio.timeout(20):
        for future in futures:
            with pytest.raises(Late):
                await future
    await asyncio.sleep(0)
    assert len(timeout) == 0


async def test_a_bounded_future_that_is_done_or_cancelled_in_time_leaves_nothing_behind():
    timeout, loop = SharedTimeout(3600), asyncio.get_running_loop()
    done, cancelled = loop.create_future(), loop.create_future()
    timeout.bound(done, Late)
    timeout.bound(cancelled, Late)
    assert len(timeout) == 2
    done.set_result(1)
    cancelled.cancel()
    await asyncio.sleep(0)
    assert (len(timeout), done.result()) == (0, 1)
    timeout.shorten(0)
