"""The HTTP port of a worker: opened before anything else, drained first at a stop."""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass

from aiohttp import web
from yarl import URL

from runtime.common.settings import Settings
from runtime.http.admission import requests_in_flight
from runtime.http.connections import Runner
from runtime.worker.stop_steps import CLOSE_S, StopSteps

log = logging.getLogger(__name__)

_IPV6 = {"127.0.0.1": ("::1",), "localhost": ("::1",), "0.0.0.0": ("::",)}  # noqa: S104
"""By the host of IPv4: what `localhost` may mean to a client, which perhaps tries no second address."""


@dataclass(frozen=True, slots=True)
class HttpSide:
    """A running HTTP server, and the base URL under which other workers reach it."""

    runner: Runner
    url: URL

    DRAIN_S = 0.5
    """Seconds at a stop in which requests on open connections are answered as ever."""

    async def drain(self) -> None:
        """Accepts no new connection, and waits until the requests in flight are answered.

        Connections stay open until the end: closing one would break a request that is on its way. A later request on
        one is answered, with 503 once partitions are gone, and with `Connection: close`.
        """
        await self.runner.drain(self.DRAIN_S)
        while requests_in_flight(self.runner.app):  # noqa: ASYNC110 - as long as the step may take
            await asyncio.sleep(self.runner.POLL_S)


async def serve(app: web.Application, settings: Settings, ports: Collection[int], stop: StopSteps) -> HttpSide:
    """Opens the HTTP port of a worker, and the ports of its services besides (`ports`).

    With `HTTP_PORT=0` the latter are not opened: a worker on any free port must not take a well-known one.
    """
    runner = Runner(app, shutdown_timeout=CLOSE_S)
    await runner.setup()
    stop.add(runner.cleanup, 2 * CLOSE_S)
    await web.TCPSite(runner, settings.http_host, settings.http_port, backlog=1024).start()
    port: int = runner.addresses[0][1]
    side = HttpSide(runner, settings.base_url(port))
    if settings.http_port:
        for wanted in {*ports} - {0, port}:
            await _serve_also(side, settings.http_host, wanted)
    return side


async def _serve_also(side: HttpSide, host: str, port: int) -> None:
    """Listens on the port of a service, too; also on IPv6 where the host has one address of each kind."""
    for name in (host, *_IPV6.get(host, ())):
        try:
            await web.TCPSite(side.runner, name, port, backlog=1024).start()
        except OSError as error:
            if name == host:
                log.warning("port not available port=%d error=%s; the services answer at %s", port, error, side.url)
                return
            log.debug("no IPv6 port=%d error=%s", port, error)
    log.info("listening on service port port=%d", port)
