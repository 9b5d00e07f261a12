"""Measures POST → VALIDATED: the core in one worker, all services in one worker, the core in four processes.

Starts a broker, databases and workers, warms them up, and measures at 50 and 200 orders per second and with 64
concurrent clients. They share the machine with the load generator: compare rows of one run, not figures of two runs.

    python bench/latency.py [--seconds 20] [--guarantee exactly_once] [--layout core --layout all]

What the history costs the core: `--layout core --layout history --layout beside`, the core alone, with the history in
the same worker, and with the history in another one.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from ecosystem.cli.up.children import Children
from ecosystem.cli.up.layout import PlannedWorker
from ecosystem.clients.health import is_ready
from ecosystem.clients.writer import Writer
from ecosystem.embedded.kafka import Cluster
from ecosystem.embedded.mail_server import MailSink
from ecosystem.embedded.ports import free_ports
from ecosystem.embedded.postgres import Postgres
from ecosystem.loadgen.sample import customers
from ecosystem.services import CORE, DATABASES, NAMES
from runtime.common.settings import Settings
from schemas.messages import StockLevel
from schemas.topics import CUSTOMERS, WAREHOUSE_INVENTORY

PRODUCTS = ("UNDERPANTS", "JUMPERS")
LAYOUTS = {
    "core": (CORE,),
    "all": (NAMES,),
    "apart": tuple((service,) for service in CORE),
    "history": ((*CORE, "history"),),
    "beside": (CORE, ("history",)),
}
"""By name: the services of each process."""
USUAL = ("core", "all", "apart")
LOADS = (["--rate", "50"], ["--rate", "200"], ["--clients", "64"])


async def write_sample_data(settings: Settings) -> None:
    async with Writer(settings) as writer:
        await writer.write(WAREHOUSE_INVENTORY, [StockLevel(product=p, count=10**9) for p in PRODUCTS])
        await writer.write(CUSTOMERS, customers())


def run_load(url: str, *arguments: str) -> dict[str, object]:
    command = [sys.executable, str(Path(__file__).with_name("load.py")), "--url", url, *arguments]
    result: dict[str, object] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return result


def measure(servers: str, folder: Path, seconds: float, guarantee: str, layout: str) -> list[dict[str, object]]:
    compositions = LAYOUTS[layout]
    prefix = f"{layout}-"
    settings = Settings(kafka_bootstrap_servers=servers, topic_prefix=prefix)
    asyncio.run(write_sample_data(settings))
    ports = free_ports(len(compositions))
    workers = [PlannedWorker(services[0], services, port) for services, port in zip(compositions, ports, strict=True)]
    children = Children(Console(file=(folder / f"{prefix}log").open("w")), 10)
    with ExitStack() as stack:
        stack.callback(children.stop)
        surroundings: dict[str, str] = {}
        if not {*CORE}.issuperset(service for services in compositions for service in services):
            surroundings["SMTP_PORT"] = str(stack.enter_context(MailSink(folder / f"{prefix}mail")).port)
            postgres = stack.enter_context(Postgres(folder / f"{prefix}postgres"))
            surroundings |= {url: postgres.database(name) for name, url in DATABASES.items()}
        for worker in workers:
            env = {
                **os.environ,
                **surroundings,
                "KAFKA_BOOTSTRAP_SERVERS": servers,
                "TOPIC_PREFIX": prefix,
                "PROCESSING_GUARANTEE": guarantee,
                "UNKNOWN_PRODUCTS": "pass",
                "HTTP_PORT": str(worker.port),
                "STATE_DIR": str(folder / prefix / worker.name),
            }
            children.start(worker.name, ["run", *worker.services], env)
        while not all([is_ready(worker.url) for worker in workers]):
            if why := children.failure():
                raise RuntimeError(f"{why}: see {folder}")
            time.sleep(0.2)
        url = next(worker.url for worker in workers if "orders" in worker.services)
        run_load(url, "--clients", "16", "--seconds", "5")  # warm up
        return [run_load(url, *arguments, "--seconds", str(seconds)) for arguments in LOADS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="seconds of each measurement (default: %(default)s)")
    parser.add_argument(
        "--guarantee", choices=["exactly_once", "at_least_once"], default="exactly_once", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--layout", choices=LAYOUTS, action="append", help="may be repeated (default: core, all, apart)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, Cluster(Path(home)) as cluster:
        print(f"{'layout':<10}{'load':<14}{'orders/s':>9}{'POST p50':>10}{'p99':>8}{'VALIDATED p50':>15}{'p99':>8}  ms")
        for layout in args.layout or USUAL:
            rows = measure(cluster.bootstrap_servers, Path(home), args.seconds, args.guarantee, layout)
            for (kind, amount), row in zip(LOADS, rows, strict=True):
                what = f"{amount} per second" if kind == "--rate" else f"{amount} clients"
                print(
                    f"{layout:<10}{what:<14}{row['per_second']:>9}{row['post_p50']:>10}"
                    f"{row['post_p99']:>8}{row['validated_p50']:>15}{row['validated_p99']:>8}  {row['errors'] or ''}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
