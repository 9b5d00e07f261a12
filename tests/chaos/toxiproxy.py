"""Network faults by toxiproxy: a client of its HTTP API.

github.com/Shopify/toxiproxy: this version is the newest that Go from Debian 12 and Ubuntu 22.04 can build.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from ecosystem.cli.discovery import data_dir
from ecosystem.embedded import processes
from ecosystem.embedded.kafka.install import cache_dir
from ecosystem.embedded.locks import exclusive_lock
from ecosystem.embedded.ports import free_ports
from tests.go_modules import NotInstalled, go

VERSION = "v2.5.0"
_MODULE = f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"
_START_S = 60.0


def installed() -> Path:
    """Path of toxiproxy-server: from PATH, or built once into the project's cache. Raises `NotInstalled`."""
    if found := shutil.which("toxiproxy-server"):
        return Path(found)
    folder = cache_dir(data_dir() / "cache") / f"toxiproxy-{VERSION}"
    with exclusive_lock(folder / ".lock", wait=True):
        if not (folder / "server").exists():
            done = subprocess.run(
                [go(), "install", _MODULE],
                env={**os.environ, "GOBIN": str(folder)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=300,
            )
            if done.returncode:
                raise NotInstalled(f"go install {_MODULE} failed: {done.stderr.strip()[-500:]}")
    return folder / "server"


class Toxiproxy:
    """A running toxiproxy-server and its proxies."""

    def __init__(self, binary: Path, log: Path) -> None:
        self._binary = binary
        self._log = log
        self._names: set[str] = set()

    async def __aenter__(self) -> Self:
        [port] = free_ports(1)
        with self._log.open("wb") as log:
            self._process = processes.spawn([self._binary, "-host", "127.0.0.1", "-port", str(port)], log)
        connector = aiohttp.TCPConnector(force_close=True)  # the server closes idle connections, perhaps during a write
        self._http = aiohttp.ClientSession(f"http://127.0.0.1:{port}", raise_for_status=True, connector=connector)
        async with asyncio.timeout(_START_S):
            while True:
                try:
                    await self._ask("GET", "/proxies")
                except aiohttp.ClientError:
                    await asyncio.sleep(0.02)
                else:
                    return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()
        processes.kill(self._process)

    async def add(self, name: str, listen: int) -> None:
        """Adds a proxy on the loopback interface without a target."""
        await self._ask("POST", "/proxies", {"name": name, "listen": f"127.0.0.1:{listen}", "upstream": "127.0.0.1:1"})

    async def lead(self, name: str, upstream: int) -> None:
        """Sets the target port of a proxy."""
        await self._ask("POST", f"/proxies/{name}", {"upstream": f"127.0.0.1:{upstream}"})

    async def cut(self, names: Iterable[str]) -> None:
        """Closes every connection and refuses new ones."""
        for name in names:
            await self._ask("POST", f"/proxies/{name}", {"enabled": False})

    async def swallow(self, names: Iterable[str], *streams: str) -> None:
        """Drops bytes silently: `upstream` those of the client, `downstream` those of the server."""
        for name in names:
            for stream in streams:
                await self._toxic(name, "timeout", stream, timeout=0)

    async def slow(self, names: Iterable[str], latency_ms: int) -> None:
        """Delays answers by up to twice `latency_ms`."""
        for name in names:
            await self._toxic(name, "latency", "downstream", latency=latency_ms, jitter=latency_ms)

    async def heal(self, names: Iterable[str]) -> None:
        """Removes all faults of these proxies."""
        for name in names:
            for toxic in await self._ask("GET", f"/proxies/{name}/toxics"):
                await self._ask("DELETE", f"/proxies/{name}/toxics/{toxic['name']}")
            await self._ask("POST", f"/proxies/{name}", {"enabled": True})

    async def _toxic(self, proxy: str, kind: str, stream: str, **attributes: int) -> None:
        toxic = {"name": f"{kind}-{stream}", "type": kind, "stream": stream, "attributes": attributes}
        await self._ask("POST", f"/proxies/{proxy}/toxics", toxic)

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        async with self._http.request(method, path, json=body) as response:
            return await response.json(content_type=None) if response.status == 200 else None
