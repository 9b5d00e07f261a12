"""Workers as processes, and their supervisor, which restarts them."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Self

import aiohttp

from ecosystem.embedded import processes
from ecosystem.embedded.ports import free_ports
from tests.chaos.brokers import Lane
from tests.workers import Deployment

SESSION_S = 6.0

READY_S = 300.0
"""Seconds a worker may take to become ready once faults are healed. Eight may start at once on two slow cores."""

STOP_S = 60.0
"""Seconds after which a stopping worker, paused perhaps meanwhile, counts as stuck."""

_AGAIN_S = 0.5
_LAST_WORDS = re.compile(r"(?:worker failed error=|worker cannot start reason=|process ended code=1 reason=)(.*)")


@dataclass
class Process:
    """A worker: its process, and the settings to restart it with the same state."""

    name: str
    services: tuple[str, ...]
    port: int
    environment: dict[str, str]
    folder: Path
    lane: Lane | None = None
    supervised: bool = True
    """Whether it is restarted when it ends by itself."""
    wanted: bool = False
    popen: subprocess.Popen[bytes] | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by a fault that ends the process, until the process runs again."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def state(self) -> Path:
        return Path(self.environment["STATE_DIR"])

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def start(self) -> None:
        self.wanted = True
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "ecosystem.cli", "run", *self.services]
            self.popen = processes.spawn(command, log, env=self.environment)

    def tell(self, number: int) -> None:
        if self.popen and self.running:
            self.popen.send_signal(number)

    async def end(self, number: int) -> float:
        """Sends a signal and waits for the end. Does not restart. Returns the seconds it took."""
        self.wanted = False
        start = monotonic()
        self.tell(number)
        self.tell(signal.SIGCONT)  # a suspended process gets its signals only then
        async with asyncio.timeout(STOP_S):
            while self.running:
                await asyncio.sleep(0.02)
        return monotonic() - start


class Fleet:
    """The workers of a campaign."""

    def __init__(
        self,
        deployment: Deployment,
        *compositions: tuple[str, ...],
        lanes: Iterator[Lane | None] | None = None,
        **settings: Any,
    ) -> None:
        self.deployment = deployment
        self.exits: Counter[str] = Counter()
        """Workers that ended themselves: counts by exit code and reason."""
        self.crashes: list[str] = []
        """Workers that ended without a reason."""
        self._settings = settings
        self._lanes = lanes
        self._count = 0
        self.processes: list[Process] = []
        for services in compositions:
            self.processes.append(self.make(services))

    def make(self, services: tuple[str, ...], **changes: Any) -> Process:
        """Makes a worker with its own port, state folder and lane. Does not start it or add it to the fleet."""
        name = f"w{self._count}-{'-'.join(services) if len(services) == 1 else 'core'}"
        self._count += 1
        [port] = free_ports(1)
        lane = next(self._lanes) if self._lanes else None
        settings = {
            "TOPIC_PREFIX": self.deployment.prefix,
            "KAFKA_BOOTSTRAP_SERVERS": lane.servers if lane else self.deployment.servers,
            "HTTP_PORT": str(port),
            "STATE_DIR": str(self.deployment.folder / name),
            "SESSION_TIMEOUT_S": str(SESSION_S),
            "HEARTBEAT_INTERVAL_S": "1",
            "VALIDATION_DEADLINE_S": "300",
            "UNKNOWN_PRODUCTS": "pass",
            **{key.upper(): str(value) for key, value in {**self._settings, **changes}.items()},
        }
        return Process(name, services, port, {**os.environ, **settings}, self.deployment.folder, lane)

    async def __aenter__(self) -> Self:
        self.deployment.folder.mkdir(parents=True, exist_ok=True)
        for process in self.processes:
            process.start()
        self._supervisor = asyncio.create_task(self._supervise())
        try:
            await self.ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        self._supervisor.cancel()
        await asyncio.gather(self._supervisor, return_exceptions=True)
        for process in self.processes:
            if process.popen:
                processes.kill(process.popen)

    async def _supervise(self) -> None:
        while True:
            for process in list(self.processes):
                if process.wanted and process.supervised and process.popen and not process.running:
                    self._ended(process, process.popen.returncode)
                    await asyncio.sleep(_AGAIN_S)
                    if process.wanted and not process.running:
                        process.start()
            await asyncio.sleep(0.1)

    def _ended(self, process: Process, code: int) -> None:
        said = _LAST_WORDS.findall(process.log.read_text(errors="replace")[-20_000:])
        if code == 1 and said:
            self.exits[re.sub(r"\d+", "n", said[-1])[:80]] += 1
        else:
            self.crashes.append(f"{process.name} ended with code {code}, see {process.log}")

    async def ready(self) -> None:
        """Waits until every worker is ready."""
        try:
            async with asyncio.timeout(READY_S):
                await asyncio.gather(*(self._ready(process) for process in self.processes))
        except TimeoutError:
            waiting = [p.name for p in self.processes if not await self._is_ready(p)]
            ended = [f"{n} times: {why}" for why, n in self.exits.items()] + self.crashes[-len(self.processes) :]
            raise AssertionError("; ".join([f"not ready in {READY_S:.0f} s: {', '.join(waiting)}", *ended])) from None

    async def _ready(self, process: Process) -> None:
        while not await self._is_ready(process):
            await asyncio.sleep(0.1)

    async def _is_ready(self, process: Process) -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self.deployment.http.get(f"{process.url}/readyz", timeout=aiohttp.ClientTimeout(5)) as response:
                return response.status == 200
        return False

    @property
    def gates(self) -> list[Process]:
        """Workers that accept orders."""
        return [p for p in self.processes if "orders" in p.services]
