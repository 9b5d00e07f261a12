"""A soak: a worker with the whole core under a steady load, and whether it keeps what it takes of memory and handles.

Starts its own broker and worker, posts orders at a steady rate, each waited for until it is decided, and looks at the
worker every few seconds: resident memory, open files, connections, threads, tasks and memory blocks of Python. Prints a
line a look and, at the end, by how much each grew between the first and the last third of the time after the warm-up.
Ends with code 1 if one of them grew by more than it may, or if orders failed.

RocksDB fills its caches until they are full, and Python one of 65,536 keys: that is the warm-up. With little memory for
RocksDB it is over sooner, and a leak elsewhere shows earlier.

    python -m bench.soak [--minutes 30] [--rate 60] [--warm-up 10] [--state-memory-mb 1] [--csv curve.csv]
"""

import argparse
import asyncio
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console

from bench.latency import announce_stock
from ecosystem.cli.up.children import Children
from ecosystem.cli.up.layout import plan
from ecosystem.clients.health import is_ready
from ecosystem.embedded.kafka import Cluster
from ecosystem.embedded.ports import free_ports
from runtime.common.settings import Settings

MIB = 1024 * 1024

MAY_GROW = {"rss_mib": 0.05, "files": 0.25, "connections": 0.5, "threads": 0.05, "tasks": 0.5, "blocks": 0.02}
"""Share by which a figure may grow between the thirds. Connections, and the tasks that serve them, are as many as
clients make; RocksDB opens as many files as it has, 64 a store at most."""


@dataclass(frozen=True)
class Look:
    """The worker at one moment."""

    minutes: float
    rss_mib: float
    files: int
    connections: int
    threads: int
    tasks: int
    blocks: int
    orders: int


def look(worker: psutil.Process, url: str, began: float) -> Look:
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        metrics = dict(re.findall(r"^(\w+(?:\{[^}]*\})?) ([0-9.e+]+)$", answer.read().decode(), re.MULTILINE))
    connections = len(worker.net_connections())
    with worker.oneshot():
        return Look(
            minutes=round((time.monotonic() - began) / 60, 2),
            rss_mib=round(worker.memory_info().rss / MIB, 1),
            files=worker.num_fds() - connections,
            connections=connections,
            threads=worker.num_threads(),
            tasks=int(float(metrics["faust_orders_event_loop_tasks"])),
            blocks=int(float(metrics["faust_orders_python_memory_blocks"])),
            orders=int(float(metrics["faust_orders_processed_total"])),
        )


def verdict(looks: list[Look]) -> bool:
    """Prints by how much each figure grew, and returns whether none grew by more than it may."""
    third = len(looks) // 3
    flat = True
    for figure, most in MAY_GROW.items():
        first, last = (median(getattr(one, figure) for one in part) for part in (looks[:third], looks[-third:]))
        share = last / first - 1
        flat &= share <= most
        grows = "" if share <= most else "  GROWS"
        print(f"{figure:<12}{first:>10g} → {last:>10g}   {share:+.1%}, may be {most:+.0%}{grows}")
    minutes = looks[-1].minutes - looks[0].minutes
    print(f"over {minutes:.1f} minutes after the warm-up: {'flat' if flat else 'something grows'}")
    return flat


def generator(url: str, rate: float, minutes: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(Path(__file__).with_name("load.py")), "--url", url, "--rate", str(rate)]
    return subprocess.Popen([*command, "--seconds", str(minutes * 60)], stdout=subprocess.PIPE)


def soak(servers: str, folder: Path, args: argparse.Namespace) -> bool:
    settings = Settings(kafka_bootstrap_servers=servers, topic_prefix="soak-")
    asyncio.run(announce_stock(settings))
    (worker,) = plan(False, 1, free_ports)
    children = Children(Console(file=(folder / "worker.log").open("w")), 10)
    env = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "TOPIC_PREFIX": "soak-",
        "PROCESSING_GUARANTEE": args.guarantee,
        "UNKNOWN_PRODUCTS": "pass",
        "HTTP_PORT": str(worker.port),
        "STATE_DIR": str(folder / "state"),
        "STATE_MEMORY_MB": str(args.state_memory_mb),
    }
    looks: list[Look] = []
    load = None
    try:
        process = psutil.Process(children.start(worker.name, ["run", *worker.services], env))
        while not is_ready(worker.url):
            if why := children.failure():
                raise RuntimeError(f"{why}: see {folder}")
            time.sleep(0.2)
        load, began = generator(worker.url, args.rate, args.minutes), time.monotonic()
        while load.poll() is None:
            time.sleep(args.every)
            if load.poll() is None:
                looks.append(look(process, worker.url, began))
                print("  ".join(f"{k}={v}" for k, v in asdict(looks[-1]).items()), flush=True)
        assert load.stdout is not None
        result = json.loads(load.stdout.read())
    finally:
        if load is not None and load.poll() is None:
            load.kill()
        children.stop()
        if args.csv and looks:
            with Path(args.csv).open("w", newline="") as file:
                writer = csv.DictWriter(file, [f.name for f in fields(Look)])
                writer.writeheader()
                writer.writerows(map(asdict, looks))
    print(json.dumps(result))
    flat = verdict([one for one in looks if one.minutes >= args.warm_up])
    return flat and not result["errors"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=60, help="orders a second")
    parser.add_argument("--state-memory-mb", type=int, default=1, help="of a table-partition")
    parser.add_argument("--warm-up", type=float, default=10, help="minutes that the verdict leaves out")
    parser.add_argument("--every", type=float, default=10, help="seconds between two looks")
    parser.add_argument("--guarantee", choices=["exactly_once", "at_least_once"], default="exactly_once")
    parser.add_argument("--csv", help="where to write the curve")
    args = parser.parse_args()
    if args.minutes < args.warm_up + 3 * args.every / 60:
        parser.error("--minutes must be longer than --warm-up, and leave room for three looks")
    with tempfile.TemporaryDirectory() as home, Cluster(Path(home)) as cluster:
        return 0 if soak(cluster.bootstrap_servers, Path(home), args) else 1


if __name__ == "__main__":
    sys.exit(main())
