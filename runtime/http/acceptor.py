"""Listening sockets of the HTTP server. One iteration of the event loop accepts all waiting connections.

uvloop accepts one connection in each iteration (libuv since 1.45, pull request 3696). An iteration of a worker can last
as long as a batch. If hundreds of clients connected together, the last ones would wait for seconds.
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
"""Errors of `accept` without a free file descriptor or memory. The connection stays in the accept queue, and the socket
stays readable."""


class Acceptor:
    """Accepts the connections of one listening socket.

    Arguments:
        bound: the socket, bound to its address. The acceptor listens on a duplicate of it.
        new_protocol: creates the protocol of a connection.
        backlog: size of the accept queue, in connections.
    """

    MAX_ACCEPTS = 256
    """Connections that one iteration accepts at most. They take about 10 ms, during which open connections wait."""
    PAUSE_S = 1.0
    """Seconds from an exhausted resource to the next `accept`, as in asyncio."""

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
        """Refuses new connections, accepts the waiting ones for `seconds`, then closes the socket.

        Closing the socket resets the connections in the accept queue.
        """
        self._socket.listen(0)  # on Linux a second call sets the backlog: no further connections
        await asyncio.sleep(seconds)
        self._accept(self._backlog)
        await self.close()  # in the same iteration: no connection can arrive in between

    async def close(self) -> None:
        """Closes the socket. Returns once all accepted connections have their protocols."""
        if self._socket.fileno() >= 0:
            self._pause()
            self._socket.close()
        if self._opening:
            await asyncio.wait(self._opening)

    def _accept(self, limit: int) -> None:
        for _ in range(limit):
            try:
                connection, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue  # the client aborted it in the accept queue
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
        except OSError as error:  # the client has closed the connection
            connection.close()
            log.debug("connection not opened error=%s", error)

    def _pause(self) -> None:
        self._loop.remove_reader(self._socket)
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._socket, self._accept, self.MAX_ACCEPTS)


class Site(web.TCPSite):
    """A host and port of a runner, with an acceptor for each of its addresses.

    Relies on private parts of aiohttp: `_runner`, `_host`, `_port`, `_backlog` and `_server` of the base classes, and
    that `BaseSite.start` registers the site.
    """

    __slots__ = ("_acceptors",)

    async def start(self) -> None:
        self._acceptors: list[Acceptor] = []
        await web.BaseSite.start(self)
        protocols = self._runner.server
        assert protocols is not None, "the runner is set up"
        loop = asyncio.get_running_loop()
        self._server = server = await loop.create_server(protocols, self._host, self._port, start_serving=False)
        self._acceptors += (Acceptor(bound, protocols, self._backlog) for bound in server.sockets)

    async def drain(self, seconds: float) -> None:
        """Accepts the waiting connections for `seconds`, then stops. See `Acceptor.drain`."""
        await asyncio.gather(*(acceptor.drain(seconds) for acceptor in self._acceptors))
        await self.stop()

    async def stop(self) -> None:
        await asyncio.gather(*(acceptor.close() for acceptor in self._acceptors))
        await super().stop()
