"""Pauses grow up to a bound, and start over after a success. An operation is repeated while its errors pass."""

import asyncio

import pytest

from runtime.common.backoff import Backoff, retry


async def test_pauses_double_up_to_the_longest_and_start_over_after_a_success(monkeypatch):
    slept: list[float] = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    backoff = Backoff(0.5, 3)
    for _ in range(4):
        await backoff.pause()
    backoff.reset()
    await backoff.pause()

    assert slept == [0.5, 1, 2, 3, 0.5]


async def test_an_operation_is_repeated_until_it_succeeds(monkeypatch):
    slept: list[float] = []
    reported: list[str] = []

    async def sleep(seconds):
        slept.append(seconds)

    async def operation():
        if len(slept) < 3:
            raise OSError(str(len(slept)))
        return "result"

    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert await retry(operation, Backoff(1), report=lambda error: reported.append(str(error))) == "result"
    assert slept == [1, 1, 1]
    assert reported == ["0", "1", "2"]


async def test_an_error_that_does_not_pass_is_raised_at_once():
    errors = [OSError(), ValueError("lasting"), OSError()]

    async def operation():
        raise errors.pop(0)

    with pytest.raises(ValueError, match="lasting"):
        await retry(operation, Backoff(0), passes=lambda error: isinstance(error, OSError))
    assert len(errors) == 1


async def test_a_cancelled_operation_is_not_repeated():
    started = asyncio.Event()

    async def operation():
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(retry(operation, Backoff(0)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
