"""Connections with a fast path: aiohttp's, which answer some requests themselves.

Relies on the base class as `runtime.http.connections` does, and on `_request_count`, the number of requests that it has
parsed; `_messages`, those that wait; `_current_request`, the one being handled; `_waiter`, a pending future while it
waits for a request; `_close` and `_force_close`, whether it reads no more; `_keepalive_timeout` and
`_next_keepalive_close_time`, when an idle connection is closed; and `_paused`, whether the client reads too slowly.
"""

import time
from typing import Any

from aiohttp import web

from runtime.hosting import FastResponse
from runtime.http.connections import HandedOver, HttpConnection
from runtime.http.fast_path.exchange import Exchange
from runtime.http.fast_path.requests import State
from runtime.http.fast_path.responses import encoded
from runtime.http.fast_path.routes import FastPath
from runtime.http.metrics import InFlight, observe
from runtime.http.problems import unexpected

MAX_AHEAD = 64 * 1024
"""Bytes that are read behind the request being answered."""

_MAX_LOOKS = 5
"""Steps of the event loop until aiohttp waits for the next request, at most; else it reads the body of this one."""


class FastConnection(HttpConnection):
    """A connection whose plain requests of fast routes are answered without aiohttp.

    Every other request is handed over to aiohttp from its first byte; the rest of the connection as well, where the end
    of the request is uncertain.

    Arguments:
        fast_path: the routes.
    """

    __slots__ = ("_ahead", "_began", "_exchange", "_fast_path", "_handed_over", "_left", "_looks", "_reader")

    def __init__(self, *arguments: Any, fast_path: FastPath, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._fast_path = fast_path
        self._reader = fast_path.new_reader()
        self._exchange: Exchange | None = None
        self._ahead = b""
        """What has been read behind the request of the exchange."""
        self._began = 0.0
        self._handed_over: HandedOver | None = None
        """The request that aiohttp begins next, if it was handed over."""
        self._looks = 0
        """Looks that are left (`_look`)."""
        self._left = False
        """Whether the rest of the connection is for aiohttp."""

    def take_handed_over(self) -> HandedOver | None:
        """See `HttpConnection`."""
        handed_over, self._handed_over = self._handed_over, None
        return handed_over

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp itself asks what its parser has left
            super().data_received(data)
        elif self._exchange is not None or self._looks:
            self._read_ahead(data)
        elif self._left:
            super().data_received(data)
        elif self._is_idle:
            self._read(data)
        elif self._current_request is None:
            self._looks = _MAX_LOOKS
            self._read_ahead(data)
            self._loop.call_soon(self._look)
        else:
            self._left = True
            self._pass_on(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._exchange is not None:
            self._end(499)
        super().connection_lost(exc)
        self._reader.close()

    def respond(self, response: FastResponse | web.Response) -> None:
        """Sends the response, and ends the exchange. See `exchange.Connection`."""
        transport, stopping = self.transport, self._fast_path.host.stopping
        raw = encoded(response, close=stopping)
        self._end(response.status)
        self._reader.clear()
        if transport is None:
            return
        transport.write(raw)
        if stopping or self._close:
            self.force_close()
        else:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            self._continue()

    def hand_over(self, timeout_ms: int | None = None) -> None:
        """Ends the exchange, and lets aiohttp answer the request. See `exchange.Connection`."""
        self._end(None)
        request = self._reader
        if timeout_ms is not None:
            path = request.target.partition(b"?")[0]
            request.raw = request.raw.replace(request.target, b"%b?timeout=%d" % (path, timeout_ms), 1)
        if self.transport is not None:
            self._handed_over = HandedOver(self._began, signed=request.forwarded)
            self._pass_on()
            self._continue()

    def fail(self, error: BaseException) -> None:
        """Answers with a 500. See `exchange.Connection`."""
        route = self._reader.route
        assert route is not None
        self.respond(unexpected(route.method, route.path, error))

    @property
    def _is_idle(self) -> bool:
        """Whether aiohttp answers nothing and waits for a request, and the client reads."""
        if self._paused or self._close or self._force_close:
            return False
        if self._request_count == 0:
            return True
        return self._waiter is not None and not self._waiter.done() and not self._messages

    def _read(self, data: bytes) -> None:
        reader = self._reader
        state = reader.feed(data)
        if state is State.COMPLETE:
            route = reader.route if reader.plain else None
            exchange = None if route is None else self._fast_path.exchange(route, reader, self)
            if exchange is None:
                self._pass_on()
            else:
                self._begin(exchange)
        elif state is State.UNFIT:
            self._left = True
            self._pass_on()

    def _look(self) -> None:
        """Looks whether aiohttp, which has sent its response, waits for a request now: that takes it a step or two."""
        self._looks -= 1
        if self._looks and not self._is_idle and self._current_request is None:
            self._loop.call_soon(self._look)
            return
        self._looks = 0
        if not self._is_idle:
            self._left = True
            self._ahead = self._reader.raw + self._ahead
            self._reader.clear()
        self._continue()

    def _read_ahead(self, data: bytes) -> None:
        self._ahead += data
        if len(self._ahead) > MAX_AHEAD and self.transport is not None:
            self.transport.pause_reading()

    def _continue(self) -> None:
        """Reads what has been read ahead."""
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            if self.transport is not None:
                self.transport.resume_reading()
            self.data_received(ahead)

    def _pass_on(self, more: bytes = b"") -> None:
        """Gives what is read of a request to aiohttp; the rest of the connection as well, unless it was one request."""
        requests, raw = self._request_count, self._reader.raw + more
        self._reader.clear()
        super().data_received(raw)
        if self._request_count != requests + 1:
            self._left = True

    def _begin(self, exchange: Exchange) -> None:
        self._exchange, self._began = exchange, time.perf_counter()
        self._fast_path.in_flight[exchange.is_read] += 1
        InFlight.count += 1
        exchange.begin()

    def _end(self, status: int | None) -> None:
        """Ends the exchange. It counts as a request, unless it is handed over (`None`) and counts in aiohttp."""
        exchange, route, self._exchange = self._exchange, self._reader.route, None
        assert exchange is not None
        assert route is not None
        exchange.close()
        self._fast_path.in_flight[exchange.is_read] -= 1
        InFlight.count -= 1
        if status is not None:
            observe(route.method, route.path, status, time.perf_counter() - self._began)
