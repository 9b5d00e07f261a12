"""A worker whose disk is gone rebuilds the state of a million orders from the changelogs: time, rate, memory.

Starts its own broker, writes the changelogs (rows of real decisions under new ids), then starts a worker of the core on
an empty directory, watches it until it is ready, and reads some of the orders back. Then kills it and starts it again
on the state that is there.

    python -m bench.recovery [--orders 1000000] [--batch 100]
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from bench.changelogs import Changelogs
from ecosystem.embedded.kafka import Cluster
from ecosystem.embedded.ports import free_ports
from ecosystem.services import CORE
from runtime.common.settings import Settings

EVERY_S = 0.25
MIB = 1024 * 1024


async def watched(process: subprocess.Popen[bytes], url: str, http: aiohttp.ClientSession) -> dict[str, Any]:
    """Until the worker is ready: seconds since its start, the largest memory, how it grew, and progress as it told."""
    started, worker = time.monotonic(), psutil.Process(process.pid)
    curve: list[tuple[float, int, Any]] = []
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"the worker ended with code {process.returncode}")
        try:
            async with http.get(f"{url}/readyz") as response:
                body = await response.json()
                curve.append((time.monotonic() - started, worker.memory_info().rss // MIB, body["takeover"]))
                if response.status == 200:
                    break
        except (aiohttp.ClientError, OSError):
            pass
        await asyncio.sleep(EVERY_S)
    return {"seconds": curve[-1][0], "most_mib": max(rss for _, rss, _ in curve), "curve": curve}


def start(settings: Settings, folder: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    [port] = free_ports(1)
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "TOPIC_PREFIX": settings.topic_prefix,
        "HTTP_PORT": str(port),
        "STATE_DIR": str(folder),
        "UNKNOWN_PRODUCTS": "pass",
    }
    with log.open("ab") as output:
        command = [sys.executable, "-m", "ecosystem.cli", "run", *CORE]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    return process, f"http://127.0.0.1:{port}"


async def read_back(http: aiohttp.ClientSession, url: str, ids: list[str]) -> int:
    """How many of these orders are there, decided, as they should be."""
    found = 0
    for id_ in ids:
        async with http.get(f"{url}/v1/orders/{id_}/validated?timeout=0") as response:
            body = await response.json()
            found += response.status == 200 and body["id"] == id_ and body["state"] == "VALIDATED"
    return found


async def measure(servers: str, home: Path, orders: int, batch: int, prefix: str) -> None:
    settings = Settings(kafka_bootstrap_servers=servers, topic_prefix=prefix, unknown_products="pass")
    changelogs = Changelogs(settings)
    kept = home / f"{prefix}ids"
    if not kept.exists():
        began = time.monotonic()
        kept.write_text("\n".join(await changelogs.write(orders, batch)))
        print(
            f"{orders} orders, {changelogs.records_an_order:.2f} records each, {batch} a transaction: written in ",
            end="",
        )
        print(f"{time.monotonic() - began:.0f} s", flush=True)
    ids = kept.read_text().split()
    async with aiohttp.ClientSession() as http:
        with tempfile.TemporaryDirectory(dir=home) as state:
            for title, end in (("rebuilt", signal.SIGKILL), ("started again after kill -9", signal.SIGTERM)):
                log = home / "worker.log"
                log.unlink(missing_ok=True)
                process, url = start(settings, Path(state), log)
                try:
                    found = await watched(process, url, http)
                    there = await read_back(http, url, ids)
                finally:
                    process.send_signal(end)
                    process.wait(30)
                line = next(line for line in log.read_text().splitlines() if "took over" in line)
                restored = int(line.partition("restored=")[2].split()[0])
                seconds = float(line.partition("seconds=")[2].split()[0])
                print(f"{title}: ready after {found['seconds']:.1f} s, of which the takeover {seconds:.1f} s: ", end="")
                print(f"{restored} records, {restored / max(seconds, 0.01):,.0f}/s; ", end="")
                print(f"memory at most {found['most_mib']} MiB; {there} of {len(ids)} orders read back", flush=True)
                for at, rss, progress in found["curve"][:: max(1, len(found["curve"]) // 12)]:
                    print(f"  {at:6.1f} s {rss:5d} MiB {progress}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=100, help="orders a transaction")
    parser.add_argument("--servers", help="a broker that runs already, instead of one of its own")
    parser.add_argument("--home", type=Path, help="with --servers: where what was written there before is noted")
    args = parser.parse_args()
    prefix = f"recovery-{args.orders}-{args.batch}-"
    if args.servers:
        args.home.mkdir(exist_ok=True)
        asyncio.run(measure(args.servers, args.home, args.orders, args.batch, prefix))
        return
    with tempfile.TemporaryDirectory() as home, Cluster(Path(home)) as cluster:
        asyncio.run(measure(cluster.bootstrap_servers, Path(home), args.orders, args.batch, prefix))


if __name__ == "__main__":
    main()
