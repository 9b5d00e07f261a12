"""Runs checks one after the other, and reports each in a line."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from rich.console import Console

_PAUSE_S = 0.5


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
    """Runs all checks, each repeated until it passes or `timeout_s` is over. Returns whether all passed."""
    failed = 0
    for check in checks:
        started = time.monotonic()
        found, passed = await _outcome(check, started + timeout_s)
        mark = "[green]ok[/]    " if passed else "[red]FAILED[/]"
        console.print(f"{mark} {check.name}: ", end="")
        console.print(found, markup=False, soft_wrap=True, end="")
        console.print(f" ({time.monotonic() - started:.1f} s)")
        if not passed:
            console.print(f"       {check.remedy}", markup=False, soft_wrap=True)
            failed += 1
    console.print(f"{len(checks) - failed} of {len(checks)} checks passed")
    return not failed


async def _outcome(check: Check, deadline: float) -> tuple[str, bool]:
    while True:
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), _PAUSE_S)):
                return await check.perform(), True
        except Exception as error:  # of any client: what a system that is not up yet answers
            if time.monotonic() >= deadline:
                return str(error) or repr(error), False
        await asyncio.sleep(_PAUSE_S)
