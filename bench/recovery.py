"""Measures how a worker restores the state of a million orders from the changelogs: time, rate, memory.

Starts a broker, writes the changelogs (copies of rows of processed orders), starts a worker of the core on an empty
directory, watches it until it is ready, and reads some of the orders back. Then kills the worker and starts it again on
its state.

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

POLL_S = 0.25
MIB = 1024 * 1024


async def watch_until_ready(process: subprocess.Popen[bytes], url: str, http: aiohttp.ClientSession) -> dict[str, Any]:
    """Returns seconds until the worker is ready, its peak memory, and samples of memory and progress."""
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
        await asyncio.sleep(POLL_S)
    return {"seconds": curve[-1][0], "peak_mib": max(rss for _, rss, _ in curve), "curve": curve}


def start(settings: Settings, folder: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Starts a worker of the core. Returns its process and base URL."""
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


async def count_validated(http: aiohttp.ClientSession, url: str, ids: list[str]) -> int:
    """Counts those of the orders that can be read and are VALIDATED."""
    found = 0
    for id_ in ids:
        async with http.get(f"{url}/v1/orders/{id_}/validated?timeout=0") as response:
            body = await response.json()
            found += response.status == 200 and body["id"] == id_ and body["state"] == "VALIDATED"
    return found


async def measure(servers: str, home: Path, orders: int, batch: int, prefix: str) -> None:
    settings = Settings(kafka_bootstrap_servers=servers, topic_prefix=prefix, unknown_products="pass")
    changelogs = Changelogs(settings)
    ids_file = home / f"{prefix}ids"
    if not ids_file.exists():
        began = time.monotonic()
        ids_file.write_text("\n".join(await changelogs.write(orders, batch)))
        print(
            f"{orders} orders, {changelogs.records_per_order:.2f} records each, {batch} per transaction: written in ",
            end="",
        )
        print(f"{time.monotonic() - began:.0f} s", flush=True)
    ids = ids_file.read_text().split()
    async with aiohttp.ClientSession() as http:
        with tempfile.TemporaryDirectory(dir=home) as state:
            for title, end in (("restored", signal.SIGKILL), ("started again after SIGKILL", signal.SIGTERM)):
                log = home / "worker.log"
                log.unlink(missing_ok=True)
                process, url = start(settings, Path(state), log)
                try:
                    found = await watch_until_ready(process, url, http)
                    validated = await count_validated(http, url, ids)
                finally:
                    process.send_signal(end)
                    process.wait(30)
                line = next(line for line in log.read_text().splitlines() if "partitions restored" in line)
                restored = int(line.partition("restored=")[2].split()[0])
                seconds = float(line.partition("seconds=")[2].split()[0])
                print(f"{title}: ready after {found['seconds']:.1f} s, of which the restore {seconds:.1f} s: ", end="")
                print(f"{restored} records, {restored / max(seconds, 0.01):,.0f}/s; ", end="")
                print(f"peak memory {found['peak_mib']} MiB; {validated} of {len(ids)} orders read back", flush=True)
                for at, rss, progress in found["curve"][:: max(1, len(found["curve"]) // 12)]:
                    print(f"  {at:6.1f} s {rss:5d} MiB {progress}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=1_000_000, help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=100, help="orders per transaction (default: %(default)s)")
    parser.add_argument("--servers", help="brokers that run already, instead of an embedded one")
    parser.add_argument(
        "--home", type=Path, help="with --servers: folder of ids that earlier runs wrote to these brokers"
    )
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
