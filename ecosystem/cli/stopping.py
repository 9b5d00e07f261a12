"""Ends a command that runs until a signal, whatever it waits for when the signal comes."""

import asyncio
import math
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from runtime.health.pulse import Pulse

GRACE_S = 5.0
"""Seconds for open requests after a signal: most are answered in less, and waiting longer changes no report."""

END_S = 10.0
"""Seconds from a signal to the exit, with code 1 if need be. `orders up` kills its children a little later."""


class StopRequest:
    """Says whether a signal has come, and how long a command may still run then."""

    def __init__(self) -> None:
        self.received = asyncio.Event()
        """Set by SIGTERM and SIGINT."""
        self.grace_s = 0.0
        """Seconds until the command is cancelled. At first none: a command that still starts has nothing to end."""


async def run_until_signal(command: Callable[[StopRequest], Coroutine[Any, Any, None]]) -> None:
    """Runs a command. After SIGTERM or SIGINT it ends by itself, or is cancelled."""
    stop, loop, pulse = StopRequest(), asyncio.get_running_loop(), Pulse(math.inf)
    task = asyncio.create_task(command(stop))

    def end() -> None:
        if not stop.received.is_set():
            stop.received.set()
            pulse.end_within(END_S)
            loop.call_later(stop.grace_s, task.cancel)

    pulse.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        await task
    except asyncio.CancelledError:
        if not stop.received.is_set():
            raise
    finally:
        if not stop.received.is_set():
            pulse.stop()
