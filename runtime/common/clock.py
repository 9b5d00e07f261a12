"""The two clocks: one that people read, and one that only goes forward. Processors read neither (`Context.now`)."""

import asyncio
from datetime import UTC, datetime


def utc_now() -> datetime:
    """The time of day, UTC."""
    return datetime.now(UTC)


def elapsed_s() -> float:
    """Seconds on the event loop's clock: for differences only. It does not jump when somebody sets the time."""
    return asyncio.get_running_loop().time()
