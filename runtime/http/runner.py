"""Runs the HTTP server of a worker, and drains it at a stop.

Relies on private parts of aiohttp; each use says on what.
"""

import asyncio
import logging
from typing import Any

from aiohttp import web

from runtime.common.clock import elapsed_s
from runtime.http.acceptor import Site
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
    BACKLOG = 1024
    """Size of the accept queue of each address, in connections."""
    ACCEPT_S = 0.1
    """Seconds of a stop during which waiting connections are still accepted."""

    def __init__(self, app: web.Application, *, shutdown_timeout: float = 5.0) -> None:
        super().__init__(app, handle_signals=False, shutdown_timeout=shutdown_timeout)

    async def listen(self, host: str, port: int) -> None:
        """Listens on all addresses of the host. Raises `OSError`."""
        site = Site(self, host, port, backlog=self.BACKLOG)
        try:
            await site.start()
        except OSError:
            await site.stop()
            raise

    async def drain(self, seconds: float) -> None:
        """Stops to listen, and waits up to `seconds` until clients have closed their connections.

        A kept-alive connection stays open until its next request is answered, with `Connection: close` (`admission`).
        """
        await asyncio.gather(*(site.drain(self.ACCEPT_S) for site in self.sites if isinstance(site, Site)))
        end = elapsed_s() + seconds
        while self._connected and elapsed_s() < end:  # noqa: ASYNC110 - aiohttp has no event for it
            await asyncio.sleep(self.POLL_S)

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
