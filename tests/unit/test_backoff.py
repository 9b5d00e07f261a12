"""Pauses grow up to a bound, and start over after a success."""

import asyncio

from runtime.common.backoff import Backoff


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
