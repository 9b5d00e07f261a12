"""Runs a worker of the core under steady load, and checks that its memory and handles do not grow.

Starts a broker and a worker, posts orders at a steady rate and awaits each outcome. Samples the worker every few
seconds: resident memory, open files, connections, threads, tasks and memory blocks of Python. Prints each sample, and
at the end how much each figure grew between the first and the last third of the time after the warm-up. Exit code 1: a
figure grew by more than its limit, or orders failed.

During the warm-up RocksDB fills its caches, and Python a cache of 65,536 keys. With little memory for RocksDB the
warm-up is shorter, and a leak elsewhere shows earlier.

    python -m bench.soak [--minutes 30] [--rate 60] [--warm-up 10] [--write-buffer-kb 256] [--csv curve.csv]
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

from bench.comparison.ours import write_sample_data
from ecosystem.cli.up.children import Children
from ecosystem.cli.up.layout import plan_workers
from ecosystem.clients.health import is_ready
from ecosystem.embedded.kafka import Cluster
from ecosystem.embedded.ports import free_ports
from runtime.common.settings import Settings

MIB = 1024 * 1024

MAX_GROWTH = {"rss_mib": 0.05, "files": 0.25, "connections": 0.5, "threads": 0.05, "tasks": 0.5, "blocks": 0.02}
"""Largest allowed growth between the thirds, as a share. Connections and their tasks depend on the clients; RocksDB
opens all its files, at most 64 per store."""


@dataclass(frozen=True)
class Sample:
    """Figures of the worker at one moment."""

    minutes: float
    rss_mib: float
    files: int
    connections: int
    threads: int
    tasks: int
    blocks: int
    orders: int


def take_sample(worker: psutil.Process, url: str, started: float) -> Sample:
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        metrics = dict(re.findall(r"^(\w+(?:\{[^}]*\})?) ([0-9.e+]+)$", answer.read().decode(), re.MULTILINE))
    connections = len(worker.net_connections())
    with worker.oneshot():
        return Sample(
            minutes=round((time.monotonic() - started) / 60, 2),
            rss_mib=round(worker.memory_info().rss / MIB, 1),
            files=worker.num_fds() - connections,
            connections=connections,
            threads=worker.num_threads(),
            tasks=int(float(metrics["faust_orders_event_loop_tasks"])),
            blocks=int(float(metrics["faust_orders_python_memory_blocks"])),
            orders=int(float(metrics["faust_orders_processed_total"])),
        )


def is_flat(samples: list[Sample]) -> bool:
    """Prints how much each figure grew. Returns whether no growth exceeds its limit."""
    third = len(samples) // 3
    flat = True
    for figure, limit in MAX_GROWTH.items():
        first, last = (median(getattr(one, figure) for one in part) for part in (samples[:third], samples[-third:]))
        share = last / first - 1
        flat &= share <= limit
        grows = "" if share <= limit else "  GROWS"
        print(f"{figure:<12}{first:>10g} → {last:>10g}   {share:+.1%}, limit {limit:+.0%}{grows}")
    minutes = samples[-1].minutes - samples[0].minutes
    print(f"over {minutes:.1f} minutes after the warm-up: {'flat' if flat else 'something grows'}")
    return flat


def start_load(url: str, rate: float, minutes: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(Path(__file__).with_name("load.py")), "--url", url, "--rate", str(rate)]
    return subprocess.Popen([*command, "--seconds", str(minutes * 60)], stdout=subprocess.PIPE)


def soak(servers: str, folder: Path, args: argparse.Namespace) -> bool:
    settings = Settings(kafka_bootstrap_servers=servers, topic_prefix="soak-")
    asyncio.run(write_sample_data(settings))
    (worker,) = plan_workers(False, 1, free_ports)
    children = Children(Console(file=(folder / "worker.log").open("w")), 10)
    env = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "TOPIC_PREFIX": "soak-",
        "PROCESSING_GUARANTEE": args.guarantee,
        "UNKNOWN_PRODUCTS": "pass",
        "HTTP_PORT": str(worker.port),
        "STATE_DIR": str(folder / "state"),
        "STATE_WRITE_BUFFER_KB": str(args.write_buffer_kb),
    }
    samples: list[Sample] = []
    load = None
    try:
        process = psutil.Process(children.start(worker.name, ["run", *worker.services], env))
        while not is_ready(worker.url):
            if why := children.failure():
                raise RuntimeError(f"{why}: see {folder}")
            time.sleep(0.2)
        load, started = start_load(worker.url, args.rate, args.minutes), time.monotonic()
        while load.poll() is None:
            time.sleep(args.every)
            if load.poll() is None:
                samples.append(take_sample(process, worker.url, started))
                print("  ".join(f"{k}={v}" for k, v in asdict(samples[-1]).items()), flush=True)
        assert load.stdout is not None
        result = json.loads(load.stdout.read())
    finally:
        if load is not None and load.poll() is None:
            load.kill()
        children.stop()
        if args.csv and samples:
            with Path(args.csv).open("w", newline="") as file:
                writer = csv.DictWriter(file, [f.name for f in fields(Sample)])
                writer.writeheader()
                writer.writerows(map(asdict, samples))
    print(json.dumps(result))
    flat = is_flat([one for one in samples if one.minutes >= args.warm_up])
    return flat and not result["errors"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="(default: %(default)s)")
    parser.add_argument("--rate", type=float, default=60, help="orders per second (default: %(default)s)")
    parser.add_argument(
        "--write-buffer-kb", type=int, default=256, help="STATE_WRITE_BUFFER_KB of the worker (default: %(default)s)"
    )
    parser.add_argument("--warm-up", type=float, default=10, help="minutes that are not judged (default: %(default)s)")
    parser.add_argument("--every", type=float, default=10, help="seconds between two samples (default: %(default)s)")
    parser.add_argument(
        "--guarantee", choices=["exactly_once", "at_least_once"], default="exactly_once", help="(default: %(default)s)"
    )
    parser.add_argument("--csv", help="file for the samples")
    args = parser.parse_args()
    if args.minutes < args.warm_up + 3 * args.every / 60:
        parser.error("--minutes must be longer than --warm-up, and leave room for three samples")
    with tempfile.TemporaryDirectory() as home, Cluster(Path(home)) as cluster:
        return 0 if soak(cluster.bootstrap_servers, Path(home), args) else 1


if __name__ == "__main__":
    sys.exit(main())
