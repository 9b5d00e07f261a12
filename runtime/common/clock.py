"""Wall clock and monotonic clock. Processors read neither (`Context.now`)."""

import asyncio
from datetime import UTC, datetime


def utc_now() -> datetime:
    """The time of day, UTC."""
    return datetime.now(UTC)


def elapsed_s() -> float:
    """Seconds on the monotonic clock of the event loop, for differences."""
    return asyncio.get_running_loop().time()
