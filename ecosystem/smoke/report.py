"""Runs checks one after the other, and reports each in a line."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import aiohttp
from rich.console import Console

_PAUSE_S = 0.5
_REFUSED_S = 10.0
"""Seconds for which connections may be refused, but for the first check: by its end, what starts listens, or soon."""


class CheckFailed(Exception):
    """What a check found does not meet what it expects. The text says both."""


class Check(NamedTuple):
    """A check.

    Arguments:
        name: what is checked.
        perform: returns what was found; raises `CheckFailed`, or an error of its client, which is repeated in time.
        remedy: where to look when it fails.
    """

    name: str
    perform: Callable[[], Awaitable[str]]
    remedy: str


async def run(checks: Sequence[Check], timeout_s: float, console: Console) -> bool:
    """Runs all checks. Returns whether all passed.

    Each is repeated until it passes or `timeout_s` is over; checks after the first, which waits for a system that
    starts, until connections have been refused for `_REFUSED_S`.
    """
    failed = 0
    for number, check in enumerate(checks):
        started = time.monotonic()
        found, passed = await _outcome(check, started + timeout_s, started + (_REFUSED_S if number else timeout_s))
        mark = "[green]ok[/]    " if passed else "[red]FAILED[/]"
        console.print(f"{mark} {check.name}: ", end="")
        console.print(found, markup=False, soft_wrap=True, end="")
        console.print(f" ({time.monotonic() - started:.1f} s)")
        if not passed:
            console.print(f"       {check.remedy}", markup=False, soft_wrap=True)
            failed += 1
    console.print(f"{len(checks) - failed} of {len(checks)} checks passed")
    return not failed


async def _outcome(check: Check, deadline: float, refused_until: float) -> tuple[str, bool]:
    while True:
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), _PAUSE_S)):
                return await check.perform(), True
        except Exception as error:  # of any client: what a system that is not up yet answers
            refused = isinstance(error, ConnectionRefusedError | aiohttp.ClientConnectorError)
            if time.monotonic() >= (min(deadline, refused_until) if refused else deadline):
                return str(error) or repr(error), False
        await asyncio.sleep(_PAUSE_S)
