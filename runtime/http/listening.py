"""Listening sockets of the HTTP server: a turn of the event loop accepts all connections that wait.

uvloop accepts one in each turn (libuv since 1.45, pull request 3696). A turn of a worker may take as long as a batch:
of hundreds of clients that connect at once, or for each request, the last would wait for seconds.
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from aiohttp import web

log = logging.getLogger(__name__)

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""No file or memory is left for a connection. It waits in the accept queue, and the socket stays readable."""


class Listener:
    """Accepts the connections of one listening socket.

    Arguments:
        bound: the socket, bound. The listener has a duplicate of its own.
        new_protocol: makes the protocol of a connection.
        backlog: connections that may wait to be accepted.
    """

    MOST = 256
    """Connections of one turn: others that are open must not wait for long either."""
    PAUSE_S = 1.0
    """Seconds until the next attempt when no file is left."""

    def __init__(self, bound: Any, new_protocol: Callable[[], asyncio.BaseProtocol], backlog: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._new_protocol = new_protocol
        self._backlog = backlog
        self._opening: set[asyncio.Task[Any]] = set()
        self._paused: asyncio.TimerHandle | None = None
        self._socket = socket.socket(fileno=os.dup(bound.fileno()))
        try:
            self._socket.setblocking(False)
            self._socket.listen(backlog)
            self._resume()
        except BaseException:
            self._socket.close()
            raise

    async def drain(self, seconds: float) -> None:
        """Refuses new connections, accepts for `seconds` those that wait already, then closes the socket.

        Closing it resets the connections that nobody has accepted.
        """
        self._socket.listen(0)  # on Linux a second call sets the backlog: no further connections
        await asyncio.sleep(seconds)
        self._accept(self._backlog)
        await self.close()  # in the same turn: no connection can arrive in between

    async def close(self) -> None:
        """Closes the socket. Returns once all accepted connections have their protocols."""
        if self._socket.fileno() >= 0:
            self._pause()
            self._socket.close()
        if self._opening:
            await asyncio.wait(self._opening)

    def _accept(self, most: int | None = None) -> None:
        for _ in range(most or self.MOST):
            try:
                connection, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue  # by the client, while it waited
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.error("connections not accepted, retrying error=%s seconds=%g", error, self.PAUSE_S)  # noqa: TRY400 - expected
                self._pause()
                self._paused = self._loop.call_later(self.PAUSE_S, self._resume)
                return
            connection.setblocking(False)
            opening = self._loop.create_task(self._open(connection))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._new_protocol, connection)
        except OSError as error:  # the client has closed it
            connection.close()
            log.debug("connection not opened error=%s", error)

    def _pause(self) -> None:
        self._loop.remove_reader(self._socket)
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._socket, self._accept)


class Site(web.TCPSite):
    """An address of a runner, whose connections are accepted by listeners.

    Relies on private parts of aiohttp: `_runner`, `_host`, `_port`, `_backlog` and `_server` of the base classes, and
    that `BaseSite.start` registers the site.
    """

    __slots__ = ("_listeners",)

    async def start(self) -> None:
        self._listeners: list[Listener] = []
        await web.BaseSite.start(self)
        protocols = self._runner.server
        assert protocols is not None, "the runner is set up"
        loop = asyncio.get_running_loop()
        self._server = server = await loop.create_server(protocols, self._host, self._port, start_serving=False)
        self._listeners += (Listener(bound, protocols, self._backlog) for bound in server.sockets)

    async def drain(self, seconds: float) -> None:
        """Stops, but first accepts for `seconds` the connections that wait. See `Listener.drain`."""
        await asyncio.gather(*(listener.drain(seconds) for listener in self._listeners))
        await self.stop()

    async def stop(self) -> None:
        await asyncio.gather(*(listener.close() for listener in self._listeners))
        await super().stop()
