"""Connections of the HTTP server: problem responses to malformed requests, and draining at a stop.

Relies on private parts of aiohttp, as does `_expect` in `runtime/http/server.py`; each use says on what. The tested
version is in `TESTED` (`runtime/kafka/aiokafka_internals.py`).
"""

import asyncio
import logging
import os
import socket
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import _ErrInfo

from runtime.common.clock import elapsed_s
from runtime.http.answers import problem
from runtime.http.problems import unexpected

log = logging.getLogger(__name__)

_CLIENT_ERRORS = (web.RequestPayloadError, HttpProcessingError, ConnectionError)


class _HttpConnection(web.RequestHandler):
    """Answers a malformed request with a problem response, where aiohttp would answer with text or HTML."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Ends a body with malformed framing: aiohttp would let the handler wait for its remainder for ever.

        Relies on the base class: `_current_request` is the one being handled, `_messages` are the parsed ones that wait
        after it, and a parse error among them is an `_ErrInfo`.
        """
        open_body = None if self._current_request is None else self._current_request.content
        super().data_received(data)
        for message, body in self._messages:
            if isinstance(message, _ErrInfo) and open_body is not None and not open_body.is_eof():
                open_body.set_exception(web.RequestPayloadError(message.message))
            open_body = body

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called by aiohttp for a malformed request, and for an exception that no middleware has handled."""
        if request.writer.output_size > 0:
            raise ConnectionError("the response is already being sent")
        if status < 500:
            log.debug("request malformed remote=%s", request.remote, exc_info=exc)
            # The first line is the reason; the next ones show the offending bytes.
            reason = (message or "").partition("\n")[0]
            response = problem(status, f"This is not a well-formed HTTP request: {reason}")
        else:
            response = unexpected(request, exc)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Called by aiohttp for an unhandled exception; an unread remainder of a body may be malformed, too."""
        if isinstance(kw.get("exc_info"), _CLIENT_ERRORS):
            log.debug("remainder of request malformed", exc_info=kw["exc_info"])
        else:
            super().log_exception(*args, **kw)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        """Called by the event loop for each new connection. Relies on the constructor of `RequestHandler`."""
        loop = asyncio.get_running_loop()
        # `runtime.http.decoding` decompresses bodies, and rejects truncated ones.
        return _HttpConnection(self, loop=loop, access_log=_access_log(), auto_decompress=False)  # type: ignore[arg-type]


class _AcceptQueue:
    """Connections that the kernel has established and nobody has accepted: closing the socket would reset them."""

    POLL_S = 0.01

    def __init__(self, listening: Any) -> None:
        self._socket = socket.socket(fileno=os.dup(listening.fileno()))
        self._socket.setblocking(False)
        self._socket.listen(0)  # on Linux a second call sets the backlog: no further connections

    async def drain(self, server: Any, seconds: float) -> None:
        """Accepts the queued connections for `seconds`, then closes the socket."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        with self._socket:
            while True:
                try:
                    connection, _ = self._socket.accept()
                except BlockingIOError:
                    if loop.time() >= end:
                        return  # closes at once: no connection can arrive in between
                    await asyncio.sleep(self.POLL_S)
                else:
                    connection.setblocking(False)
                    await loop.connect_accepted_socket(server, connection)


class Runner(web.AppRunner):
    """Runs a worker's application.

    A handler whose client has disconnected is cancelled. There is no access log unless its logger has level DEBUG: it
    would cost more than the requests.

    Arguments:
        app: the application.
        shutdown_timeout: seconds for requests in flight when the worker stops. Waiting ones are woken before.
    """

    POLL_S = 0.02
    """Seconds between two checks whether all connections are closed."""
    ACCEPT_S = 0.1
    """Seconds in which connections of the accept queue are still accepted at a stop."""

    def __init__(self, app: web.Application, *, shutdown_timeout: float = 5.0) -> None:
        super().__init__(app, handle_signals=False, shutdown_timeout=shutdown_timeout)

    async def drain(self, seconds: float) -> None:
        """Stops to listen, and waits up to `seconds` until clients have closed their connections.

        A kept-alive connection stays open until its next request is answered, with `Connection: close` (`admission`).
        """
        queues = [_AcceptQueue(listening) for listening in self._listening]
        for site in list(self.sites):
            await site.stop()
        for queue in queues:
            await queue.drain(self.server, self.ACCEPT_S)
        end = elapsed_s() + seconds
        while self._connected and elapsed_s() < end:  # noqa: ASYNC110 - aiohttp has no event for it
            await asyncio.sleep(self.POLL_S)

    @property
    def _listening(self) -> list[Any]:
        """The listening sockets. Relies on `_server` of a site, an `asyncio.Server`."""
        return [own for site in self.sites for own in getattr(getattr(site, "_server", None), "sockets", None) or ()]

    @property
    def _connected(self) -> bool:
        return self.server is not None and bool(self.server.connections)

    async def _make_server(self) -> web.Server:
        """Replaces the server's class. Relies on the base class, and on `request_handler` and `request_factory`."""
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, handler_cancellation=True)


def _access_log() -> logging.Logger | None:
    logger = logging.getLogger("aiohttp.access")
    return logger if logger.isEnabledFor(logging.DEBUG) else None
