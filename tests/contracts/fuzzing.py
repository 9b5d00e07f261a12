"""All services in two worker processes, and Schemathesis run on their API."""

import asyncio
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from ecosystem.embedded.ports import free_ports
from ecosystem.services import DATABASES, NAMES
from runtime.common.settings import settings_classes
from tests.workers import Deployment, Remote

ROOT = Path(__file__).parents[2]
_CONFIG = Path(__file__).parent / "schemathesis.toml"
_START_S = 240.0
"""Seconds for two processes with all services and their migrations on a busy machine."""
_OURS = {name.upper() for kind in settings_classes() for name in kind.model_fields}


def databases(postgres: Any) -> dict[str, str]:
    """Environment variables with an empty database for each setting."""
    return {variable: postgres.database(f"t_{secrets.token_hex(4)}") for variable in DATABASES.values()}


@asynccontextmanager
async def all_services(deployment: Deployment, urls: Mapping[str, str]) -> AsyncIterator[list[Remote]]:
    """Two ready workers, so that each key is owned by one or the other."""
    own = {
        **{name: value for name, value in os.environ.items() if name not in _OURS},
        **urls,
        "KAFKA_BOOTSTRAP_SERVERS": deployment.servers,
        "TOPIC_PREFIX": deployment.prefix,
        "WORKER_KEYS": secrets.token_hex(),
        "WEBHOOK_KEYS": secrets.token_hex(),
        "SESSION_TIMEOUT_S": "30",  # on a busy machine, no worker may count as dead
        "HEARTBEAT_INTERVAL_S": "0.5",
        "PRODUCE_TIMEOUT_S": "60",  # nor may a slow answer become a 503, which is a finding
        "DATABASE_TIMEOUT_S": "60",
    }
    workers = []
    async with AsyncExitStack() as stack:
        for port in free_ports(2):
            state = {"HTTP_PORT": str(port), "STATE_DIR": str(deployment.folder / str(port))}
            workers.append(await stack.enter_async_context(_running({**own, **state})))
        async with asyncio.timeout(_START_S):
            while not all([await _is_ready(deployment, worker) for worker in workers]):
                await asyncio.sleep(0.1)
        yield workers


@asynccontextmanager
async def _running(environment: Mapping[str, str]) -> AsyncIterator[Remote]:
    command = [sys.executable, "-m", "ecosystem.cli", "run", *NAMES]
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    try:
        yield Remote(f"http://127.0.0.1:{environment['HTTP_PORT']}")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _is_ready(deployment: Deployment, worker: Remote) -> bool:
    try:
        answer = await deployment.ask(worker, "GET", "/readyz")
    except aiohttp.ClientError:
        return False
    told = answer.json()
    return bool(told["ready"] and len(told["partitions"]) == 2 and set(told["databases"].values()) <= {"open"})


class Findings(NamedTuple):
    """The report (`st run --report json`) and the output of a run of the fuzzer."""

    report: Any
    said: str


async def fuzz(url: Any, folder: Path, *options: str) -> Findings:
    """Fuzzes the API at `url` by its OpenAPI document."""
    report = folder / "report.json"
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("st")), "--config-file", str(_CONFIG), "--no-color"),
        *("run", f"{url}/openapi.json", "--report", "json", "--report-json-path", str(report), *options),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    text = said.decode()
    assert report.exists(), text
    return Findings(json.loads(report.read_text()), text)
