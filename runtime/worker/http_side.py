"""The HTTP server of a worker: opened before anything else, drained first when the worker stops."""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass

from aiohttp import web
from yarl import URL

from runtime.common.settings import Settings
from runtime.http.admission import requests_in_flight
from runtime.http.runner import Runner
from runtime.worker.stop_steps import CLOSE_S, StopSteps

log = logging.getLogger(__name__)

_IPV6 = {"127.0.0.1": ("::1",), "localhost": ("::1",), "0.0.0.0": ("::",)}  # noqa: S104
"""IPv6 addresses to listen on besides an IPv4 host: a client may resolve `localhost` to one and try no other."""


@dataclass(frozen=True, slots=True)
class HttpSide:
    """A running HTTP server, and the base URL under which other workers reach it."""

    runner: Runner
    url: URL

    DRAIN_S = 0.5
    """Seconds of a stop in which new requests on open connections are still answered normally."""

    async def drain(self) -> None:
        """Accepts no new connection, and waits until the requests in flight are answered.

        Connections stay open until the server is closed, so that no request on the wire is broken. A later request is
        answered with `Connection: close`, and with 503 once partitions are revoked.
        """
        await self.runner.drain(self.DRAIN_S)
        while requests_in_flight(self.runner.app):  # noqa: ASYNC110 - bounded by the time limit of the stop step
            await asyncio.sleep(self.runner.POLL_S)


async def serve(app: web.Application, settings: Settings, ports: Collection[int], stop: StopSteps) -> HttpSide:
    """Listens on the port of the worker and on the ports of its services (`ports`).

    With `HTTP_PORT=0` it listens on a free port alone: such a worker must not occupy a well-known one.
    """
    runner = Runner(app, shutdown_timeout=CLOSE_S)
    await runner.setup()
    stop.add(runner.cleanup, 2 * CLOSE_S)
    await runner.listen(settings.http_host, settings.http_port)
    port: int = runner.addresses[0][1]
    side = HttpSide(runner, settings.base_url(port))
    if settings.http_port:
        for service_port in {*ports} - {0, port}:
            await _listen(side, settings.http_host, service_port)
    return side


async def _listen(side: HttpSide, host: str, port: int) -> None:
    """Listens on the port of a service, on IPv4 and IPv6 where the host has both."""
    for name in (host, *_IPV6.get(host, ())):
        try:
            await side.runner.listen(name, port)
        except OSError as error:
            if name == host:
                log.warning("port not available port=%d error=%s; its service answers at url=%s", port, error, side.url)
                return
            log.debug("no IPv6 port=%d error=%s", port, error)
    log.info("listening on service port port=%d", port)
