"""Any worker answers for any key: it asks the one that owns the key, and waits while keys move between workers.

While the owner does not answer, a standby may, from its copy of the state; the answer then says so.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from runtime.errors import KeyNotOwned
from runtime.hosting import Host, StaleRow
from runtime.http.answers import RETRY, HttpProblem
from runtime.http.forwarding import NOT_HERE, READ_FROM, SERVED_BY, ask_standby, forward
from runtime.http.inputs import Deadline
from runtime.http.signatures import FORWARDED_BY
from runtime.model.service import Table

Answer = Callable[[], Awaitable[web.StreamResponse]]
FromCopy = Callable[[], web.StreamResponse | None]

# Between two looks at who owns a key, seconds. This worker's own partitions wake it sooner; those of others do not.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.25
# Between two questions to other standbys, seconds: many may wait for what no copy has yet.
_FIRST_ASKING_S, _LONGEST_ASKING_S = 0.5, 4.0


def not_here(detail: str) -> HttpProblem:
    """A 503 that says that the key is not here: whoever forwarded the request may put it to another worker."""
    return HttpProblem(503, detail, headers={**RETRY, NOT_HERE: "1"})


def served_by_standby(copy: StaleRow[Any]) -> dict[str, str]:
    """The headers of an answer from a copy; `Age` in whole seconds, as in RFC 9111, if it is known."""
    return {SERVED_BY: "standby"} | ({} if copy.age_s is None else {"Age": str(int(copy.age_s))})


async def at_owner(
    request: web.Request,
    host: Host,
    table: Table[Any],
    key: str,
    deadline: Deadline,
    answer: Answer,
    from_copy: FromCopy | None = None,
) -> web.StreamResponse:
    """The answer of the worker that owns `key`: `answer()` here, or what the owner answers to the same request.

    `answer` raises `KeyNotOwned` if the partition is not here (any more), and bears being tried again. A request that
    was forwarded is never forwarded again. Raises `HttpProblem` (503) if nobody could answer until the deadline.

    With `from_copy`, for reads: what this worker's copy of the state answers, `None` if it has no right answer. It is
    asked, and then that of another standby, as long as the owner does not answer.
    """
    standby = _Standby(request, host, key, from_copy)
    if standby.meant:
        response = standby.here()
        if response is None:
            raise not_here("This worker has no copy of what was asked for.")
        return response
    response = await _attempt(request, host, key, deadline, answer, standby)
    if response is not None:
        return response
    pause = _FIRST_PAUSE_S
    with host.watch(table, key) as watch:
        while (response := await _attempt(request, host, key, deadline, answer, standby)) is None:
            if host.stopping:
                raise not_here("This worker is stopping. Repeat the request.")
            remaining = deadline.remaining()
            if not remaining:
                raise not_here("The worker that holds this key cannot be reached now. Repeat the request.")
            await watch.wait(min(pause, remaining))
            pause = min(2 * pause, _LONGEST_PAUSE_S)
    return response


async def _attempt(
    request: web.Request, host: Host, key: str, deadline: Deadline, answer: Answer, standby: "_Standby"
) -> web.StreamResponse | None:
    owner = host.owner(key)
    response: web.StreamResponse | None = None
    if owner is not None and owner == host.url:
        try:
            return await answer()
        except KeyNotOwned:
            pass  # on its way here, or just gone
    elif FORWARDED_BY in request.headers:
        raise not_here("This worker does not hold the key. It was sent here by another one that thought so.")
    elif owner is not None:
        response = await forward(
            request,
            host,
            owner,
            deadline,
            still=lambda: not host.stopping and host.owner(key) == owner,
            instead=standby.answer,
        )
    return response if response is not None else await standby.answer()


class _Standby:
    """Copies of one key, asked on behalf of one request."""

    def __init__(self, request: web.Request, host: Host, key: str, from_copy: FromCopy | None) -> None:
        self._request = request
        self._host = host
        self._key = key
        self._from_copy = from_copy
        self._pause = _FIRST_ASKING_S
        self._next = 0.0

    @property
    def meant(self) -> bool:
        """Whether another worker asks for this one's copy."""
        return READ_FROM in self._request.headers and FORWARDED_BY in self._request.headers

    def here(self) -> web.StreamResponse | None:
        return self._from_copy() if self._from_copy is not None else None

    async def answer(self) -> web.StreamResponse | None:
        """From the copy here, or from that of another worker; `None` if none has what was asked for, or asked often."""
        response = self.here()
        if response is not None or self._from_copy is None or FORWARDED_BY in self._request.headers:
            return response
        now = time.monotonic()
        if now < self._next:
            return None
        self._next, self._pause = now + self._pause, min(2 * self._pause, _LONGEST_ASKING_S)
        for url in self._host.standbys(self._key):
            if url != self._host.url and (response := await ask_standby(self._request, self._host, url)) is not None:
                return response
        return None
