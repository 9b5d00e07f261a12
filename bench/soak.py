"""A soak: a worker with the whole core under a steady load, and whether it keeps what it takes of memory and handles.

Starts its own broker and worker, posts orders at a steady rate, each waited for until it is decided, and looks at the
worker every few seconds: resident memory, open files, threads, tasks and memory blocks of Python. Prints a line a look
and, at the end, how fast each grows after the warm-up. Ends with code 1 if one of them grows faster than it may, or if
orders failed.

    python -m bench.soak [--minutes 30] [--rate 60] [--warm-up 5] [--csv curve.csv]
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
from statistics import linear_regression, median

import psutil
from rich.console import Console

from bench.latency import announce_stock
from ecosystem.children import Children
from ecosystem.health import is_ready
from ecosystem.kafka import Cluster
from ecosystem.layout import plan
from ecosystem.ports import free_ports
from runtime.settings import Settings

MIB = 1024 * 1024

MAY_GROW = {"rss_mib": 0.10, "open_files": 0.05, "threads": 0.05, "tasks": 0.05, "blocks": 0.05}
"""Share of its median by which a figure may grow in an hour. Memory: RocksDB's caches fill up slowly."""


@dataclass(frozen=True)
class Look:
    """The worker at one moment."""

    minutes: float
    rss_mib: float
    open_files: int
    threads: int
    tasks: int
    blocks: int
    orders: int


def look(worker: psutil.Process, url: str, began: float) -> Look:
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        metrics = dict(re.findall(r"^(\w+(?:\{[^}]*\})?) ([0-9.e+]+)$", answer.read().decode(), re.MULTILINE))
    with worker.oneshot():
        return Look(
            minutes=round((time.monotonic() - began) / 60, 2),
            rss_mib=round(worker.memory_info().rss / MIB, 1),
            open_files=worker.num_fds(),
            threads=worker.num_threads(),
            tasks=int(float(metrics["event_loop_tasks"])),
            blocks=int(float(metrics["python_memory_blocks"])),
            orders=int(float(metrics["loop_decided_total"])),
        )


def growth(looks: list[Look], figure: str) -> tuple[float, float]:
    """Growth in an hour by the line of least squares, and that as a share of the median."""
    values = [float(getattr(one, figure)) for one in looks]
    slope = linear_regression([one.minutes for one in looks], values).slope * 60
    return slope, slope / (median(values) or 1)


def verdict(looks: list[Look]) -> bool:
    """Prints what grew, and returns whether nothing grew faster than it may."""
    flat = True
    hours = (looks[-1].minutes - looks[0].minutes) / 60
    for figure, most in MAY_GROW.items():
        slope, share = growth(looks, figure)
        grows = share > most
        flat &= not grows
        first, last = getattr(looks[0], figure), getattr(looks[-1], figure)
        print(
            f"{figure:<12}{first:>10} → {last:>10}   {slope:+10.2f} an hour ({share:+.1%}, may be {most:+.0%})"
            f"  {'GROWS' if grows else 'flat'}"
        )
    print(f"over {hours * 60:.1f} minutes after the warm-up: {'flat' if flat else 'something grows'}")
    return flat


def generator(url: str, rate: float, minutes: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(Path(__file__).with_name("load.py")), "--url", url, "--rate", str(rate)]
    return subprocess.Popen([*command, "--seconds", str(minutes * 60)], stdout=subprocess.PIPE)


def soak(servers: str, folder: Path, args: argparse.Namespace) -> bool:
    settings = Settings(kafka_bootstrap_servers=servers, topic_prefix="soak-")
    asyncio.run(announce_stock(settings))
    (worker,) = plan(False, 1, free_ports(1)[0])
    children = Children(Console(file=(folder / "worker.log").open("w")), 10)
    env = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "TOPIC_PREFIX": "soak-",
        "PROCESSING_GUARANTEE": args.guarantee,
        "HTTP_PORT": str(worker.port),
        "STATE_DIR": str(folder / "state"),
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
    parser.add_argument("--warm-up", type=float, default=5, help="minutes that the verdict leaves out")
    parser.add_argument("--every", type=float, default=10, help="seconds between two looks")
    parser.add_argument("--guarantee", choices=["exactly_once", "at_least_once"], default="exactly_once")
    parser.add_argument("--csv", help="where to write the curve")
    args = parser.parse_args()
    if args.minutes < args.warm_up + 2 * args.every / 60:
        parser.error("--minutes must be longer than --warm-up, and leave room for two looks")
    with tempfile.TemporaryDirectory() as home, Cluster(Path(home)) as cluster:
        return 0 if soak(cluster.bootstrap_servers, Path(home), args) else 1


if __name__ == "__main__":
    sys.exit(main())
