"""Measures what the board and metrics cost the core, and whether the page stays small and smooth at 1,000 orders/s.

Cost (`bench.board_cost`): the core alone without metrics, with metrics, and with metrics and a viewer of the board, in
alternation. Prints a table with the medians, and what each costs in the pairs of a round.

Page: a board alone, records of so many orders a second on its topics, a real browser. Prints DOM nodes, JavaScript
heap, memory and CPU of the worker, and the longest task of the page: it does not react to anybody meanwhile.

    python -m bench.board --only cost --json cost.json --write      11 minutes; the table goes into docs/evidence.md
    python -m bench.board --only cost --from cost.json --write      the same from an earlier run
    python -m bench.board --only page [--rate 1000] [--seconds 60]
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil

from bench import board_cost
from bench.board_cost import cpu_s, worker
from bench.compare import BROKER_HEAP_MB, BROKER_JVM
from bench.comparison.page import load, put, save
from ecosystem.embedded.kafka import Cluster
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.kafka import clients
from runtime.kafka.topics import ensure_topics, public_topics
from schemas.identifiers import new_order_id
from schemas.messages import BuiltInCheck

MIB = 1024 * 1024
PARTITIONS = 4
SAMPLE_S = 5.0
"""Seconds between two measurements of the page."""


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
    parser.add_argument("--turns", type=int, default=12, help="rounds of the cost (default: %(default)s)")
    parser.add_argument("--turn-seconds", type=float, default=8, help="(default: %(default)s)")
    parser.add_argument("--clients", type=int, default=256, help="of the cost (default: %(default)s)")
    parser.add_argument("--only", choices=["cost", "page"], help="one of the two")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what the cost found")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="cost from this JSON: measure nothing")
    parser.add_argument("--write", action="store_true", help="put the table of the cost into docs/evidence.md")
    args = parser.parse_args()
    if args.turns < 1:
        parser.error("--turns is at least 1")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it retries while topics are new, and says so each time
    if args.source:
        report_cost(load(args.source), args)
        return
    with (
        tempfile.TemporaryDirectory() as home,
        Cluster(Path(home), heap_mb=BROKER_HEAP_MB, jvm=BROKER_JVM) as cluster,
    ):
        servers = cluster.bootstrap_servers
        if args.only != "page":
            cost = board_cost.measure(servers, Path(home), args.turns, args.turn_seconds, args.clients)
            report_cost(cost, args)
        if args.only != "cost":
            measure_page(servers, Path(home), args.rate, args.seconds)


def report_cost(found: board_cost.Report, args: argparse.Namespace) -> None:
    """Prints what the cost found, and writes it where the options say."""
    table = board_cost.render(found)
    print(f"\n{table}", flush=True)
    if args.json:
        save(found, args.json)
    if args.write:
        put(f"{table}\n", board_cost.NAME, board_cost.PAGE)


if __name__ == "__main__":
    main()
