"""Measures what traces cost the processing of a batch: CPU time an order, off, and on at several ratios.

Runs the core, fulfilment and e-mail in memory, without a broker: commands of a batch are processed, and their rows
applied. Spans go to the SDK's queue, and are serialised by its exporter, whose collector takes everything.

    python -m bench.tracing [--orders 100] [--rounds 40] [--ratio off --ratio 0.01 --ratio 1]

Rounds alternate between the ratios: figures are the median of the rounds, and the median of the quotients of rounds
that follow each other. `--ratio off` alone runs on revisions without traces, too, for a comparison with them.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import Process, SimpleQueue
from typing import Any

from ecosystem.services import CORE, build
from orders_service.commands import place
from orders_service.state import ORDERS_VIEW
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.model.commands import Command
from runtime.model.records import Membership, PolledBatch
from runtime.testing import TopologyTestDriver
from schemas.messages import Order, StockLevel
from schemas.topics import WAREHOUSE_INVENTORY

BATCH = 50
"""Orders of a batch: what a worker polls under load."""
CUSTOMERS = 5000


class _Collector(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def _serve(ports: "SimpleQueue[int]") -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    ports.put(server.server_port)
    server.serve_forever()


@contextmanager
def _collector() -> Iterator[str]:
    """The URL of a collector in a process of its own."""
    ports: SimpleQueue[int] = SimpleQueue()
    process = Process(target=_serve, args=(ports,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ports.get()}"
    finally:
        process.terminate()


class Variant:
    """The services of an order in memory, traced at a ratio or not at all."""

    def __init__(self, ratio: str, url: str) -> None:
        self.ratio = ratio
        settings = Settings(unknown_products="pass")
        services = [hosted.service for hosted in build([*CORE, "fulfilment", "email"], settings)]
        self._export: Any = None
        if ratio == "off":
            self._driver = TopologyTestDriver(*services)
            self._root: Any = None
        else:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            from runtime.tracing.otlp import SpanRecorder, sampler, sampling
            from runtime.tracing.tracer import Tracer

            self._export = BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces"))
            sample = sampling(sampler("parentbased_traceidratio", float(ratio)))
            tracer = Tracer(sample, SpanRecorder(self._export, "bench"))
            self._driver = TopologyTestDriver(*services, tracer=tracer)
            self._root = tracer.root
        self._driver.send(WAREHOUSE_INVENTORY, StockLevel(product="mug", count=10**9))
        self._number = 0
        self.seconds: list[float] = []

    def round(self, orders: int) -> None:
        """Places orders, and notes the CPU seconds an order, those of the export included."""
        started = time.process_time()
        for _ in range(orders // BATCH):
            self._process_batch()
        if self._export is not None:
            self._export.force_flush()
        self.seconds.append((time.process_time() - started) / orders)

    def _process_batch(self) -> None:
        worker, commands = self._driver.workers[0], []
        for _ in range(BATCH):
            self._number += 1
            order = Order(
                id=f"o-{self.ratio}-{self._number}",
                customer_id=self._number % CUSTOMERS,
                product="mug",
                quantity=1,
                price=1,
                created_at=datetime.now(UTC),
            )
            partition = partition_of(order.id.encode(), self._driver.partitions)
            command = Command(worker.topology.holders[ORDERS_VIEW.name], partition, partial(place, order))
            if self._root is not None:
                command.trace = self._root()
            commands.append(command)
        self._driver._process(worker, PolledBatch([], {}, Membership(1, "bench"), commands), [])  # noqa: SLF001
        self._driver.topics.clear()

    def stop(self) -> None:
        if self._export is not None:
            self._export.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--orders",
        type=int,
        default=100,
        help="orders of a round; their spans fit into the queue (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=40, help="(default: %(default)s)")
    parser.add_argument("--ratio", action="append", help="`off` or a share of traces (default: off, 0.01, 1)")
    args = parser.parse_args()
    with _collector() as url:
        variants = [Variant(ratio, url) for ratio in args.ratio or ("off", "0.01", "1")]
        for variant in variants:
            variant.round(1000)  # warm up
            variant.seconds.clear()
        for _ in range(args.rounds):
            for variant in variants:
                variant.round(args.orders)
        for variant in variants:
            quotients = [own / first for own, first in zip(variant.seconds, variants[0].seconds, strict=True)]
            own, share = statistics.median(variant.seconds), statistics.median(quotients)
            print(f"{variant.ratio:<6}{1e6 * own:>8.0f} µs CPU an order, {share:.3f} of {variants[0].ratio}")
            variant.stop()


if __name__ == "__main__":
    main()
