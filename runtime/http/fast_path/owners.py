"""Connections to other workers, for requests that the fast path forwards: kept open, one request at a time each."""

import asyncio
import logging
from collections import deque
from typing import NamedTuple, Protocol, cast

import httptools
from yarl import URL

from runtime.http import forwarding

log = logging.getLogger(__name__)

_IDLE_S = 15.0
"""Seconds after which a connection without a request is closed, when another one becomes free."""
_KEPT = {name.lower().encode(): name for name in (*forwarding.ANSWER_HEADERS, forwarding.NOT_OWNED)}


class OwnerResponse(NamedTuple):
    """The response of another worker, with those of its headers that a forwarded response keeps."""

    status: int
    headers: dict[str, str]
    body: bytes


class Caller(Protocol):
    """Receives the response to a request. Exactly one of the two methods is called, unless the call is abandoned."""

    def answered(self, response: OwnerResponse) -> None:
        """Takes the response."""

    def lost(self) -> None:
        """Takes note that there is no response: the worker may or may not have got the request."""


class OwnerConnections:
    """The connections of this worker to others. Without a limit: each client that waits for an order uses one."""

    def __init__(self) -> None:
        self._idle: dict[URL, deque[OwnerConnection]] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._closed = False

    def call(self, to: URL, request: bytes, caller: Caller) -> "OwnerConnection":
        """Sends a request. Returns the connection, by which it can be abandoned.

        Arguments:
            to: URL of the worker; its scheme is `http`.
            request: all its bytes.
            caller: is called later, never at once.
        """
        idle = self._idle.get(to)
        if idle:
            connection = idle.pop()
            connection.send(request, caller)
            return connection
        connection = OwnerConnection(self, to)
        connection.send(request, caller)
        task = asyncio.create_task(connection.connect(), name=f"connecting to {to}")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return connection

    def close(self) -> None:
        """Closes the idle connections. Those in use are closed by their callers."""
        self._closed = True
        for task in self._connecting:
            task.cancel()
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    def release(self, connection: "OwnerConnection") -> None:
        """Keeps a connection whose request was answered for the next one."""
        if self._closed:
            connection.close()
            return
        idle = self._idle.setdefault(connection.to, deque())
        idle.append(connection)
        if idle[0].idle_since < connection.idle_since - _IDLE_S:
            idle.popleft().close()

    def forget(self, connection: "OwnerConnection") -> None:
        """Removes a connection that was closed."""
        idle = self._idle.get(connection.to)
        if idle is not None and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle[connection.to]


class OwnerConnection(asyncio.Protocol):
    """A connection to another worker. Its callbacks are called by the event loop, and by httptools.

    Arguments:
        pool: keeps it while it is idle.
        to: URL of the worker.
    """

    __slots__ = (
        "_body",
        "_caller",
        "_complete",
        "_headers",
        "_keeps",
        "_parser",
        "_pool",
        "_request",
        "_transport",
        "idle_since",
        "to",
    )

    def __init__(self, pool: OwnerConnections, to: URL) -> None:
        self.to = to
        self.idle_since = 0.0
        """By the clock of the event loop."""
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._caller: Caller | None = None
        self._request = b""
        """Waits for the connection."""
        self._clear()

    def _clear(self) -> None:
        self._headers: dict[str, str] = {}
        self._body = b""
        self._complete = self._keeps = False

    async def connect(self) -> None:
        """Connects, and sends the waiting request."""
        try:
            async with asyncio.timeout(forwarding.CONNECT_S):
                host, port = self.to.host or "", self.to.port or 80
                await asyncio.get_running_loop().create_connection(lambda: self, host, port)
        except (OSError, ValueError) as error:  # TimeoutError, and UnicodeError for a host name that is invalid
            log.debug("forwarding failed owner=%s error=%r", self.to, error)
            self._lose()

    def send(self, request: bytes, caller: Caller) -> None:
        """Sends a request, at once or when it is connected."""
        self._clear()
        self._caller = caller
        if self._transport is None:
            self._request = request
        else:
            self._transport.write(request)

    def abandon(self) -> None:
        """Takes no interest in the response: the other worker sees that its client has gone."""
        self._caller = None
        self.close()

    def close(self) -> None:
        """Closes it."""
        if self._transport is not None:
            self._transport.abort()

    def _lose(self) -> None:
        caller, self._caller = self._caller, None
        if caller is not None:
            caller.lost()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop is not a subclass
        if self._caller is None:
            self._transport.abort()
        else:
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            log.debug("forwarding failed owner=%s error=%r", self.to, error)
            self._lose()
            self.close()
            return
        caller = self._caller
        if not self._complete or caller is None:
            return
        self._caller = None
        response = OwnerResponse(self._parser.get_status_code(), self._headers, self._body)
        if self._keeps:
            self.idle_since = asyncio.get_running_loop().time()
            self._pool.release(self)
        else:
            self.close()
        caller.answered(response)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        del self._parser  # it has this connection: a cycle would wait for the garbage collector
        self._pool.forget(self)
        self._lose()

    # Called by httptools. An exception there becomes an `HttpParserError`.

    def on_message_begin(self) -> None:
        if self._caller is None or self._complete:
            raise ValueError("a response without a request")

    def on_header(self, name: bytes, value: bytes) -> None:
        kept = _KEPT.get(name.lower())
        if kept is not None:
            self._headers[kept] = value.decode("utf-8", "surrogateescape")

    def on_headers_complete(self) -> None:
        self._keeps = self._parser.should_keep_alive()

    def on_body(self, part: bytes) -> None:
        self._body = self._body + part if self._body else part

    def on_message_complete(self) -> None:
        self._complete = True
