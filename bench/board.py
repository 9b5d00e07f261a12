"""Measures what the board costs the core, and whether its page stays small and smooth at 1,000 orders a second.

Cost: the core and the board in one worker, loaded by concurrent clients; in turns nobody and one viewer watches. Prints
the orders a second and the worker's CPU time of an order, of each turn, and what a viewer costs in each pair of turns
beside each other: CPU time depends less on what else the machine does. Before a turn, the same load runs until the feed
has ended, or has found out how many orders it can show.

Page: a board alone, records of so many orders a second on its topics, a real browser. Prints DOM nodes, JavaScript
heap, memory and CPU of the worker, and the longest task of the page: it does not react to anybody meanwhile.

    python -m bench.board [--rate 1000] [--seconds 60] [--turns 6] [--turn-seconds 10] [--only cost|page]
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil

from bench.comparison.generator import Generator
from bench.comparison.ours import write_sample_data
from ecosystem.clients.health import is_ready
from ecosystem.embedded.kafka import Cluster
from ecosystem.embedded.ports import free_ports
from ecosystem.services import CORE
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.kafka import clients
from runtime.kafka.topics import ensure_topics, public_topics
from schemas.identifiers import new_order_id
from schemas.messages import BuiltInCheck

MIB = 1024 * 1024
PARTITIONS = 4
SETTLE_S = {False: 3.0, True: 12.0}
"""Seconds of load before a turn, by whether somebody watches: the feed halves what it reads every two seconds."""
LAUNCHER = "import runtime.observation.feed as f; f.Feed.IDLE_S = 0.0; from ecosystem.cli.main import main; main()"
"""Runs commands with a feed that ends with its last viewer, not a minute later."""
SAMPLE_S = 5.0
"""Seconds between two measurements of the page."""


@contextmanager
def worker(servers: str, prefix: str, folder: Path, *services: str) -> Iterator[tuple[str, psutil.Process]]:
    """Runs a worker in a process of its own: its URL, and the process."""
    (port,) = free_ports(1)
    env = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "TOPIC_PREFIX": prefix,
        "UNKNOWN_PRODUCTS": "pass",
        "HTTP_PORT": str(port),
        "STATE_DIR": str(folder / prefix / "state"),
    }
    with (folder / f"{prefix}log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", LAUNCHER, "run", *services], env=env, stdout=log)
        try:
            url = f"http://127.0.0.1:{port}"
            while not is_ready(url):
                if process.poll() is not None:
                    raise RuntimeError(f"the worker ended: see {folder}")
                time.sleep(0.2)
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


@contextmanager
def viewer(url: str, watches: bool) -> Iterator[None]:
    """A client that reads the events of the board in a process of its own, and does nothing with them."""
    reader = subprocess.Popen(["curl", "--silent", "--output", "/dev/null", f"{url}/board/events"]) if watches else None
    try:
        yield
    finally:
        if reader is not None:
            reader.terminate()
            reader.wait()


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def measure_cost(servers: str, folder: Path, turns: int, seconds: float, clients: int) -> None:
    """In turns: nobody watches, one viewer watches."""
    asyncio.run(write_sample_data(Settings(kafka_bootstrap_servers=servers, topic_prefix="cost-")))
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    with worker(servers, "cost-", folder, *CORE, "board") as (url, process):
        generator, load = Generator(), ("-clients", str(clients), "-products", "64")
        generator.run("orders", [url], load, 6)
        print(f"{'turn':<6}{'board':<10}{'orders/s':>9}{'CPU µs an order':>17}")
        for turn in range(2 * turns):
            watches = turn % 4 in {1, 2}  # off, on, on, off: a trend of the machine does not count
            with viewer(url, watches):
                generator.run("orders", [url], load, SETTLE_S[watches])
                before = cpu_s(process)
                row = generator.run("orders", [url], load, seconds)
                used = (cpu_s(process) - before) / int(str(row["ok"])) * 1e6
            found[watches].append((float(str(row["per_second"])), used))
            what = "watched" if watches else "off"
            print(f"{turn + 1:<6}{what:<10}{row['per_second']:>9}{used:>17.0f}", row["errors"] or "", flush=True)
    (rate_off, cpu_off), (rate_on, cpu_on) = (
        (median(rate for rate, _ in found[w]), median(used for _, used in found[w])) for w in (False, True)
    )
    print(f"medians: off {rate_off:.0f} orders/s, {cpu_off:.0f} µs; watched {rate_on:.0f} orders/s, {cpu_on:.0f} µs")
    pairs = list(zip(found[False], found[True], strict=True))
    orders = [100 * (1 - on / off) for (off, _), (on, _) in pairs]
    cpu = [100 * (on / off - 1) for (_, off), (_, on) in pairs]
    for what, percent in (("of the orders", orders), ("more CPU an order", cpu)):
        print(f"a viewer costs {median(percent):.1f} % {what}; pairs: {', '.join(f'{p:.1f}' for p in sorted(percent))}")


def write_orders(servers: str, prefix: str, rate: float, seconds: float) -> None:
    """Writes the records of orders. Runs in a process of its own."""
    asyncio.run(_write_orders(Settings(kafka_bootstrap_servers=servers, topic_prefix=prefix), rate, seconds))


async def _write_orders(settings: Settings, rate: float, seconds: float) -> None:
    producer = clients.producer(settings)
    await producer.start()
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        for topic, key, value in records(number):
            raw = key.encode()
            sent = json.dumps(value).encode()
            await producer.send(settings.topic_prefix + topic, sent, raw, partition_of(raw, PARTITIONS))
        if (ahead := number / rate - (time.monotonic() - began)) > 0.02:
            await asyncio.sleep(ahead)
    await producer.stop()


def records(number: int) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Topic, key and value of the records of an order; one in ten fails."""
    id_, customer, product = new_order_id(), number % 5000, f"product-{number % 100}"
    at = datetime.now(UTC).isoformat()
    order = {"id": id_, "customerId": customer, "state": "CREATED", "product": product, "quantity": 1 + number % 3}
    order |= {"price": 49.9, "createdAt": at}
    failed = number % 10 == 0
    yield "orders", id_, order
    for check in BuiltInCheck:
        result = "FAIL" if failed and check is BuiltInCheck.INVENTORY_CHECK else "PASS"
        yield "order-validations", id_, {"orderId": id_, "checkType": check, "validationResult": result}
    reasons = {"reasons": ["INVENTORY_CHECK: 2 of 'product-0' ordered, 1 available"]} if failed else {}
    yield "orders", id_, {**order, "state": "FAILED" if failed else "VALIDATED", **reasons}
    yield "orders-enriched", id_, {"id": id_, "customerId": customer, "customerLevel": "gold"}
    session = {"start": at, "end": at, "total": str(number % 2500)}
    yield "fraud-customers-changelog", str(customer), {"sessions": [session], "lastOrder": id_}
    yield "inventory-stock-changelog", product, {"count": 10**6, "reserved": number % 1000}


async def watch_page(url: str, process: psutil.Process, seconds: float) -> None:
    """Opens the board in Chromium, and measures it."""
    from playwright.async_api import async_playwright

    async with async_playwright() as started:
        browser = await started.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = await browser.new_page(viewport={"width": 1600, "height": 1000})
        await page.goto(url)
        await page.locator("board-orders tbody tr").nth(59).wait_for(timeout=60_000)
        await page.evaluate(
            """() => {
              window.longest = 0;
              new PerformanceObserver((list) => {
                for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration);
              }).observe({ type: "longtask" });
            }"""
        )
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable")
        print("   s  DOM nodes  heap MiB  worker MiB  worker CPU  page busy  longest ms  orders/s shown")
        began = time.monotonic()
        used, busy, last = cpu_s(process), 0.0, began
        while time.monotonic() - began < seconds:
            await asyncio.sleep(SAMPLE_S)
            await session.send("HeapProfiler.collectGarbage")
            found = {m["name"]: m["value"] for m in (await session.send("Performance.getMetrics"))["metrics"]}
            longest = await page.evaluate("() => { const l = window.longest; window.longest = 0; return l; }")
            shown = await page.locator("board-flow .lines .number").first.inner_text()
            now, cpu, tasks = time.monotonic(), cpu_s(process), found["TaskDuration"]
            print(
                f"{now - began:>4.0f}{found['Nodes']:>11.0f}{found['JSHeapUsedSize'] / MIB:>10.1f}"
                f"{process.memory_info().rss / MIB:>12.0f}{(cpu - used) / (now - last):>12.1%}"
                f"{(tasks - busy) / (now - last) if busy else 0:>11.1%}{longest:>12.0f}{shown:>16}",
                flush=True,
            )
            used, busy, last = cpu, tasks, now
        print("the page says:", await page.locator("#sampled").inner_text())
        await browser.close()


def measure_page(servers: str, folder: Path, rate: float, seconds: float) -> None:
    settings = Settings(kafka_bootstrap_servers=servers, topic_prefix="page-", partitions=PARTITIONS)
    names = "fraud-customers-changelog", "inventory-stock-changelog"
    changelogs = {name: {"cleanup.policy": "compact"} for name in names}
    asyncio.run(ensure_topics(settings, {**public_topics(), **changelogs}))
    with worker(servers, "page-", folder, "board") as (url, process):
        arguments = (servers, "page-", rate, seconds + 15)
        writer = multiprocessing.get_context("spawn").Process(target=write_orders, args=arguments)
        writer.start()
        try:
            asyncio.run(watch_page(url, process, seconds))
        finally:
            writer.terminate()
            writer.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1000, help="orders a second on the page (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="seconds of the page (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=6, help="turns with and without a viewer (default: %(default)s)")
    parser.add_argument("--turn-seconds", type=float, default=10, help="(default: %(default)s)")
    parser.add_argument("--clients", type=int, default=256, help="of the cost (default: %(default)s)")
    parser.add_argument("--only", choices=["cost", "page"], help="one of the two")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, Cluster(Path(home)) as cluster:
        if args.only != "page":
            measure_cost(cluster.bootstrap_servers, Path(home), args.turns, args.turn_seconds, args.clients)
        if args.only != "cost":
            measure_page(cluster.bootstrap_servers, Path(home), args.rate, args.seconds)


if __name__ == "__main__":
    main()
