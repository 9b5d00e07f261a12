"""Any worker answers for any key: it asks the one that owns the key, and waits while keys move between workers."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from runtime.hosting import Host, NotHere
from runtime.http.answers import RETRY, Refused
from runtime.http.forwarding import NOT_HERE, forward
from runtime.http.inputs import Deadline
from runtime.http.signatures import FORWARDED_BY
from runtime.service import Table

# Between two looks at who owns a key, seconds. This worker's own partitions wake it sooner; those of others do not.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.25


def not_here(detail: str) -> Refused:
    """A 503 that says that the key is not here: whoever forwarded the request may put it to another worker."""
    return Refused(503, detail, headers={**RETRY, NOT_HERE: "1"})


async def at_owner(
    request: web.Request,
    host: Host,
    table: Table[Any],
    key: str,
    deadline: Deadline,
    answer: Callable[[], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """The answer of the worker that owns `key`: `answer()` here, or what the owner answers to the same request.

    `answer` raises `NotHere` if the partition is not here (any more), and bears being tried again. A request that was
    forwarded is never forwarded again. Raises `Refused` (503) if nobody could answer until the deadline.
    """
    response = await _attempt(request, host, key, deadline, answer)
    if response is not None:
        return response
    pause = _FIRST_PAUSE_S
    with host.watch(table, key) as watch:
        while (response := await _attempt(request, host, key, deadline, answer)) is None:
            if host.stopping:
                raise not_here("This worker is stopping. Repeat the request.")
            remaining = deadline.remaining()
            if not remaining:
                raise not_here("The worker that holds this key cannot be reached now. Repeat the request.")
            await watch.wait(min(pause, remaining))
            pause = min(2 * pause, _LONGEST_PAUSE_S)
    return response


async def _attempt(
    request: web.Request,
    host: Host,
    key: str,
    deadline: Deadline,
    answer: Callable[[], Awaitable[web.StreamResponse]],
) -> web.StreamResponse | None:
    owner = host.owner(key)
    if owner is not None and owner == host.url:
        try:
            return await answer()
        except NotHere:
            return None  # on its way here, or just gone
    if FORWARDED_BY in request.headers:
        raise not_here("This worker does not hold the key. It was sent here by another one that thought so.")
    if owner is None:
        return None
    return await forward(request, host, owner, deadline, still=lambda: not host.stopping and host.owner(key) == owner)
