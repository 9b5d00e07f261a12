"""Forwards a request to the key owner, without a task of its own."""

import asyncio
import time
from typing import Any

from aiohttp import web
from yarl import URL

from runtime.hosting import FastResponse, Host
from runtime.http import forwarding
from runtime.http.fast_path.exchange import Connection
from runtime.http.fast_path.owners import OwnerConnection, OwnerConnections, OwnerResponse
from runtime.http.routing import owner_unavailable, worker_stopping
from runtime.http.signatures import forwarding_headers
from runtime.model.service import Table

_JSON = "application/json"
_FIRST_CHECK_S = 0.1
"""Seconds for the owner at least."""


class ForwardedExchange:
    """A request whose key another worker owns, and whose response is passed on.

    Whatever is not a response of the owner is left to aiohttp with the time that remains: it asks again, looks for the
    owner, or lets a standby answer. Only for idempotent requests, as `runtime.http.forwarding`.

    Arguments:
        connection: of the client.
        host: this worker.
        owners: connections to other workers.
        owner: URL of the key owner.
        key: determines the owner.
        method: of the request.
        path: of the request, without its query.
        timeout_ms: milliseconds to wait.
    """

    __slots__ = ("_call", "_connection", "_host", "_key", "_method", "_owner", "_owners", "_path", "_timer", "_until")

    is_read = False

    def __init__(
        self,
        connection: Connection,
        host: Host,
        owners: OwnerConnections,
        owner: URL,
        key: str,
        method: str,
        path: str,
        timeout_ms: int,
    ) -> None:
        self._connection = connection
        self._host = host
        self._owners = owners
        self._owner = owner
        self._key = key
        self._method = method
        self._path = path
        self._until = time.monotonic() + timeout_ms / 1000
        self._call: OwnerConnection | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Sends the request to the owner."""
        target = f"{self._path}?timeout={self._remaining_ms}"
        headers = forwarding_headers(self._host.settings.worker_keys, self._host.url, self._method, target)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = f"{self._method} {target} HTTP/1.1\r\nHost: {self._owner.host_port_subcomponent}\r\n{lines}"
        self._call = self._owners.call(self._owner, head.encode() + self._rest, self)
        self._check_after(min(forwarding.CHECK_OWNER_S, max(self._remaining_ms / 2000, _FIRST_CHECK_S)))

    def close(self) -> None:
        """Stops waiting."""
        if self._timer is not None:
            self._timer.cancel()
        if self._call is not None:
            call, self._call = self._call, None
            call.abandon()

    def answered(self, response: OwnerResponse) -> None:
        """Passes the response on. See `owners.Caller`."""
        self._call = None
        status, headers, body = response
        if status == 401 or (status == 503 and forwarding.NOT_OWNED in headers):
            self._leave()
            return
        kept = {name: headers[name] for name in forwarding.ANSWER_HEADERS if name in headers}
        try:
            if kept.get("Content-Type") == _JSON:
                del kept["Content-Type"]  # a `FastResponse` has it
                self._connection.respond(FastResponse(status, body, kept))
            else:
                self._connection.respond(web.Response(status=status, body=body, headers=kept))
        except ValueError as error:  # headers that are no text
            self._connection.fail(error)

    def lost(self) -> None:
        """Leaves the request to aiohttp. See `owners.Caller`."""
        self._call = None
        self._leave()

    @property
    def _rest(self) -> bytes:
        """The end of the head, and the body."""
        return b"\r\n"

    @property
    def _remaining_ms(self) -> int:
        return round(1000 * max(0.0, self._until - time.monotonic()))

    def _check_after(self, seconds: float) -> None:
        last_s = self._until + forwarding.GRACE_S - time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, min(seconds, last_s)), self._check)

    def _check(self) -> None:
        """The owner is silent: it may be waiting for the row, or paused and perhaps replaced."""
        try:
            if self._host.stopping:
                self._connection.respond(worker_stopping().response())
            elif self._host.owner(self._key) != self._owner or self._has_standby:
                self._leave()
            elif time.monotonic() >= self._until + forwarding.GRACE_S:
                self._connection.respond(owner_unavailable().response())
            else:
                self._check_after(forwarding.CHECK_OWNER_S)
        except Exception as error:
            self._connection.fail(error)

    @property
    def _has_standby(self) -> bool:
        """Whether a standby, this worker or another, may answer: aiohttp's part asks it again and again."""
        return False

    def _leave(self) -> None:
        self._connection.hand_over(self._remaining_ms)


class ForwardedQueryExchange(ForwardedExchange):
    """A GET of a row of another worker.

    Arguments:
        table: of the row.
        others: those of a `ForwardedExchange`.
    """

    __slots__ = ("_table",)

    is_read = True

    def __init__(self, table: Table[Any], *others: Any) -> None:
        super().__init__(*others)
        self._table = table

    @property
    def _has_standby(self) -> bool:
        return bool(self._host.standbys(self._key)) or self._host.read_stale(self._table, self._key) is not None


class ForwardedCommandExchange(ForwardedExchange):
    """A POST whose key another worker owns.

    Arguments:
        body: of the request.
        wait_s: seconds for which the client prefers to wait, if it does.
        others: those of a `ForwardedExchange`.
    """

    __slots__ = ("_body", "_wait_s")

    def __init__(self, body: bytes, wait_s: int | None, *others: Any) -> None:
        super().__init__(*others)
        self._body = body
        self._wait_s = wait_s

    @property
    def _rest(self) -> bytes:
        prefer = b"" if self._wait_s is None else b"Prefer: wait=%d\r\n" % self._wait_s
        length = len(self._body)
        return b"Content-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b" % (prefer, length, self._body)
