"""Forwards a request to the key owner, without a task of its own."""

import asyncio
import time
from typing import Any, NamedTuple

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


class OwnerRequest(NamedTuple):
    """A request to the key owner.

    Arguments:
        owner: URL of the worker.
        key: determines the owner.
        method: GET or POST.
        path: without the query.
        timeout_ms: milliseconds to wait.
        rest: what follows the headers of every forwarded request: further headers, an empty line, the body.
        table: of the row; `None`: no standby may answer.
    """

    owner: URL
    key: str
    method: str
    path: str
    timeout_ms: int
    rest: bytes = b"\r\n"
    table: Table[Any] | None = None


def rest_of_command(body: bytes, wait_s: int | None) -> bytes:
    """The `rest` of a POST with a body, whose client prefers to wait so many seconds, if it does."""
    prefer = b"" if wait_s is None else b"Prefer: wait=%d\r\n" % wait_s
    return b"Content-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b" % (prefer, len(body), body)


class ForwardedExchange:
    """A request whose key another worker owns, and whose response is passed on.

    Whatever is not a response of the owner is left to aiohttp with the time that remains: it asks again, looks for the
    owner, or lets a standby answer. Only for idempotent requests, as `runtime.http.forwarding`.

    Arguments:
        connection: of the client.
        host: this worker.
        owners: connections to other workers.
        request: to the owner.
    """

    __slots__ = ("_call", "_connection", "_host", "_owners", "_request", "_timer", "_until", "is_read")

    def __init__(self, connection: Connection, host: Host, owners: OwnerConnections, request: OwnerRequest) -> None:
        self.is_read = request.method == "GET"
        self._connection = connection
        self._host = host
        self._owners = owners
        self._request = request
        self._until = time.monotonic() + request.timeout_ms / 1000
        self._call: OwnerConnection | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Sends the request to the owner."""
        owner, _, method, path, timeout_ms, rest, _ = self._request
        target = f"{path}?timeout={timeout_ms}"
        headers = forwarding_headers(self._host.settings.worker_keys, self._host.url, method, target)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = f"{method} {target} HTTP/1.1\r\nHost: {owner.host_port_subcomponent}\r\n{lines}"
        self._call = self._owners.call(owner, head.encode() + rest, self)
        self._check_after(forwarding.first_check_s(timeout_ms / 1000))

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

    def _check_after(self, seconds: float) -> None:
        last_s = self._until + forwarding.GRACE_S - time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, min(seconds, last_s)), self._check)

    def _check(self) -> None:
        """The owner is silent: it may be waiting for the row, or paused and perhaps replaced."""
        try:
            if self._host.stopping:
                self._connection.respond(worker_stopping().response())
            elif self._host.owner(self._request.key) != self._request.owner or self._has_standby:
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
        table, key = self._request.table, self._request.key
        if table is None:
            return False
        return bool(self._host.standbys(key)) or self._host.read_stale(table, key) is not None

    def _leave(self) -> None:
        self._connection.hand_over(round(1000 * max(0.0, self._until - time.monotonic())))
