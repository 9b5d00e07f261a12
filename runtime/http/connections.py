"""The lowest layer: connections, and what is said to those who do not speak HTTP.

The only place that reaches into aiohttp beyond its documented interface: `RequestHandler.handle_error` and its
`log_exception`, what `RequestHandler.data_received` leaves behind, and the call by which `web.Server` makes one for
each connection.
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


_OF_CLIENTS = (web.RequestPayloadError, HttpProcessingError, ConnectionError)


class _Connection(web.RequestHandler):
    """Answers what is no request with a problem; aiohttp itself would use text or HTML."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Ends a body whose framing turns out to be malformed: aiohttp lets the handler wait for the rest for ever."""
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
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        if status < 500:
            log.debug("Not a request, from %s", request.remote, exc_info=exc)
            # The first line says what is wrong; those after it show the bytes that are.
            response = problem(
                status, f"This is not a well-formed HTTP request: {(message or '').partition(chr(10))[0]}"
            )
        else:
            response = unexpected(request, exc)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Called for what nobody handled; the rest of a body that nobody reads may be malformed, too."""
        if isinstance(kw.get("exc_info"), _OF_CLIENTS):
            log.debug("The rest of a request is malformed", exc_info=kw["exc_info"])
        else:
            super().log_exception(*args, **kw)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        loop = asyncio.get_running_loop()
        # `decoding` unpacks bodies, and refuses what is not whole.
        return _Connection(self, loop=loop, access_log=_access_log(), auto_decompress=False)  # type: ignore[arg-type]


class _Queue:
    """Connections that the kernel has made and nobody has taken yet: closing what listens would reset them."""

    POLL_S = 0.01

    def __init__(self, listening: Any) -> None:
        self._socket = socket.socket(fileno=os.dup(listening.fileno()))
        self._socket.setblocking(False)
        self._socket.listen(0)  # no more of them: on Linux this sets the length anew

    async def serve_out(self, server: Any, seconds: float) -> None:
        """Takes those there are, and then closes."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        with self._socket:
            while True:
                try:
                    connection, _ = self._socket.accept()
                except BlockingIOError:
                    if loop.time() >= end:
                        return  # and nothing comes between the last look and the close
                    await asyncio.sleep(self.POLL_S)
                else:
                    connection.setblocking(False)
                    await loop.connect_accepted_socket(server, connection)


class Runner(web.AppRunner):
    """Runs an application as a worker does.

    Arguments:
        app: the application.
        shutdown_timeout: seconds for requests under way when the worker stops. Those who wait for an order are woken
            first, and need far less.

    A handler whose client has gone is cancelled, so that nobody waits for an order on behalf of no one. No access log,
    unless its logger is set to DEBUG: it would cost more than the requests it tells of.
    """

    LOOK_S = 0.02
    ACCEPT_S = 0.1

    def __init__(self, app: web.Application, *, shutdown_timeout: float = 5.0) -> None:
        super().__init__(app, handle_signals=False, shutdown_timeout=shutdown_timeout)

    async def drain(self, seconds: float) -> None:
        """Takes no new connections, and returns when those there are have ended, or after `seconds`.

        A connection that a client keeps alive is not cut before its next request could have been answered: the answer
        says that it was the last (`admission`).
        """
        queues = [_Queue(listening) for listening in self._listening]
        for site in list(self.sites):
            await site.stop()
        for queue in queues:
            await queue.serve_out(self.server, self.ACCEPT_S)
        end = elapsed_s() + seconds
        while self._connected and elapsed_s() < end:  # noqa: ASYNC110 - aiohttp tells nobody
            await asyncio.sleep(self.LOOK_S)

    @property
    def _listening(self) -> list[Any]:
        return [own for site in self.sites for own in getattr(getattr(site, "_server", None), "sockets", None) or ()]

    @property
    def _connected(self) -> bool:
        return self.server is not None and bool(self.server.connections)

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, handler_cancellation=True)


def _access_log() -> logging.Logger | None:
    logger = logging.getLogger("aiohttp.access")
    return logger if logger.isEnabledFor(logging.DEBUG) else None
