"""Interactive queries: any worker answers for any key, by forwarding to the key owner and waiting while keys move.

While the owner is unavailable, a standby may answer from its replica, marked as a stale read.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiohttp import web

from runtime.errors import KeyNotOwned
from runtime.hosting import Host, ResponseHeader, StaleRow
from runtime.http.answers import RETRY, HttpProblem
from runtime.http.forwarding import NOT_OWNED, READ_FROM, SERVED_BY, ask_standby, forward, forward_stream
from runtime.http.inputs import Deadline
from runtime.http.signatures import FORWARDED_BY
from runtime.model.service import Table

OwnerAnswer = Callable[[], Awaitable[web.StreamResponse]]
StaleRead = Callable[[], web.StreamResponse | None]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.25
"""Seconds between two lookups of a key's owner. A change of this worker's own partitions wakes the request sooner."""

_FIRST_STANDBY_PAUSE_S, _LONGEST_STANDBY_PAUSE_S = 0.5, 4.0
"""Seconds between two requests to other standbys: many clients may wait for a row that no replica has yet."""

STALE_READ = (
    ResponseHeader(
        SERVED_BY,
        "`standby`: stale read from a standby replica, because the owner of the order is unavailable",
        {"type": "string", "enum": ["standby"]},
    ),
    ResponseHeader(
        "Age",
        "With X-Served-By: maximum staleness of the standby replica, in seconds",
        {"type": "integer", "minimum": 0},
    ),
)
"""Headers of an answer that may be a stale read."""


def not_owned(detail: str) -> HttpProblem:
    """A 503 with the header `X-Not-Here`, which lets a forwarding worker ask the current owner."""
    return HttpProblem(503, detail, headers={**RETRY, NOT_OWNED: "1"})


def owner_unavailable() -> HttpProblem:
    """A 503 at the deadline of a request that no worker has answered."""
    return not_owned("The worker that owns this key is unavailable. Repeat the request.")


def worker_stopping() -> HttpProblem:
    """A 503 to a request that waits on a worker that stops."""
    return not_owned("This worker is stopping. Repeat the request.")


def check_running(host: Host) -> None:
    """Ends a request that waits on a worker that stops. Raises `HttpProblem` (503)."""
    if host.stopping:
        raise worker_stopping()


def served_by_standby(stale: StaleRow[Any]) -> dict[str, str]:
    """The headers of a stale read; `Age` in whole seconds (RFC 9111), if it is known."""
    return {SERVED_BY: "standby"} | ({} if stale.age_s is None else {"Age": str(int(stale.age_s))})


async def route_to_owner(
    request: web.Request,
    host: Host,
    table: Table[Any],
    key: str,
    deadline: Deadline,
    answer: OwnerAnswer,
    stale_read: StaleRead | None = None,
    *,
    stream: bool = False,
) -> web.StreamResponse:
    """Answers on the key owner: calls `answer` if this worker owns `key`, else forwards the request to the owner.

    A forwarded request is never forwarded again.

    Arguments:
        request: the client's.
        host: this worker.
        table: the table that holds the row of `key`.
        key: determines the owner.
        deadline: of the request.
        answer: answers from this worker's state; raises `KeyNotOwned` if it does not own the key; may be called again.
        stale_read: for reads: answers from this worker's standby replica, or returns `None` if that cannot be right.
            Called, then that of another standby, while the owner is unavailable.
        stream: whether the response is a stream, without an end for now.

    Raises:
        HttpProblem: 503, nobody answered until the deadline.
    """
    standby = _Standby(request, host, key, stale_read)
    if standby.requested:
        response = standby.local()
        if response is None:
            raise not_owned("This worker's standby replica does not have the requested row.")
        return response
    attempt = partial(_attempt, request, host, key, deadline, answer, standby, stream=stream)
    response = await attempt()
    if response is not None:
        return response
    pause = _FIRST_PAUSE_S
    with host.watch(table, key) as watch:
        while (response := await attempt()) is None:
            check_running(host)
            remaining = deadline.remaining()
            if not remaining:
                raise owner_unavailable()
            await watch.wait(min(pause, remaining))
            pause = min(2 * pause, _LONGEST_PAUSE_S)
    return response


async def _attempt(
    request: web.Request,
    host: Host,
    key: str,
    deadline: Deadline,
    answer: OwnerAnswer,
    standby: "_Standby",
    *,
    stream: bool,
) -> web.StreamResponse | None:
    owner = host.owner(key)
    response: web.StreamResponse | None = None
    if owner is not None and owner == host.url:
        try:
            return await answer()
        except KeyNotOwned:
            pass  # being restored here, or just revoked
    elif FORWARDED_BY in request.headers:
        raise not_owned("This worker does not own the key to which another worker forwarded the request.")
    elif owner is not None:

        def still_needed() -> bool:
            return not host.stopping and host.owner(key) == owner

        if stream:
            return await forward_stream(request, host, owner, deadline, still_needed)
        response = await forward(request, host, owner, deadline, still_needed, standby.answer)
    return response if response is not None else await standby.answer()


class _Standby:
    """Stale reads of one key for one request: from the replica here, then from other standbys."""

    def __init__(self, request: web.Request, host: Host, key: str, stale_read: StaleRead | None) -> None:
        self._request = request
        self._host = host
        self._key = key
        self._from_copy = stale_read
        self._pause = _FIRST_STANDBY_PAUSE_S
        self._next = 0.0

    @property
    def requested(self) -> bool:
        """Whether another worker requests a stale read from this one."""
        return READ_FROM in self._request.headers and FORWARDED_BY in self._request.headers

    def local(self) -> web.StreamResponse | None:
        return self._from_copy() if self._from_copy is not None else None

    async def answer(self) -> web.StreamResponse | None:
        """The stale read; `None` if no replica has the row, or other standbys were asked a moment ago."""
        response = self.local()
        if response is not None or self._from_copy is None or FORWARDED_BY in self._request.headers:
            return response
        now = time.monotonic()
        if now < self._next:
            return None
        self._next, self._pause = now + self._pause, min(2 * self._pause, _LONGEST_STANDBY_PAUSE_S)
        for url in self._host.standbys(self._key):
            if url != self._host.url and (response := await ask_standby(self._request, self._host, url)) is not None:
                return response
        return None
