"""Reads the sets of required checks that were in force."""

from ecosystem.clients.checks import store
from ecosystem.clients.checks.store import ChecksError
from runtime.common.settings import Settings
from schemas.messages import CheckSet


async def read(settings: Settings) -> tuple[CheckSet, ...]:
    """Returns the sets by their start; none if they were never changed, or workers of earlier versions run."""
    try:
        newest = (await store.read(settings)).newest
    except ChecksError:
        return ()
    return tuple(sorted(newest.sets, key=lambda s: s.since)) if newest is not None else ()
