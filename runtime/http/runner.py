"""Runs the HTTP server of a worker, and drains it at a stop.

Relies on private parts of aiohttp; each use says on what.
"""

import asyncio
import logging
import os
import socket
from typing import Any

from aiohttp import web

from runtime.common.clock import elapsed_s
from runtime.http.connections import HttpConnection
from runtime.http.fast_path.connection import FastConnection
from runtime.http.fast_path.routes import FAST_PATH, FastPath


class _Server(web.Server):
    fast_path: FastPath | None = None

    def __call__(self) -> web.RequestHandler:
        """Called by the event loop for each new connection. Relies on the constructor of `RequestHandler`."""
        loop, access_log = asyncio.get_running_loop(), _access_log()
        # `runtime.http.decoding` decompresses bodies, and rejects truncated ones.
        options: dict[str, Any] = {"loop": loop, "access_log": access_log, "auto_decompress": False}
        if self.fast_path is None or access_log is not None:  # the fast path has no access log
            return HttpConnection(self, **options)
        return FastConnection(self, fast_path=self.fast_path, **options)


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
        server = _Server(made.request_handler, request_factory=made.request_factory, handler_cancellation=True)
        server.fast_path = self.app.get(FAST_PATH)
        return server


def _access_log() -> logging.Logger | None:
    logger = logging.getLogger("aiohttp.access")
    return logger if logger.isEnabledFor(logging.DEBUG) else None
