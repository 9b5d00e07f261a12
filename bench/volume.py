"""Measures whether a worker that holds many orders is slower than one that holds few.

A worker with the core takes orders from clients that each wait for an outcome, until it holds so many; rate, CPU time
an order and memory are printed on the way. Then a second worker, on topics of its own, takes few. Both run on the same
machine and broker from then on and are measured in alternation, so that a trend of the machine does not count.

    python -m bench.volume [--many 1000000] [--few 10000] [--clients 256] [--pairs 6] [--seconds 8] [--write]
"""

import argparse
import asyncio
import logging
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.board_cost import cpu_s, worker
from bench.compare import BROKER_HEAP_MB, BROKER_JVM, machine
from bench.comparison.generator import Generator
from bench.comparison.ours import ROOT, revision, write_sample_data
from bench.comparison.page import put
from bench.comparison.system import PRODUCTS
from ecosystem.embedded.kafka import Cluster
from ecosystem.services import CORE
from runtime.common.settings import Settings

PAGE = ROOT / "docs" / "evidence.md"
NAME = "volume"
"""Of the markers in the page."""
MIB = 1024 * 1024
_SLICE_S = 30.0
"""Seconds of load between two lines that are printed on the way."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a worker did under load: orders a second, milliseconds of its CPU time an order, MiB of memory after it."""

    rate: float
    cpu_ms: float
    rss_mib: float


class Loaded:
    """A worker under load.

    Arguments:
        stack: ends the worker.
        servers: bootstrap servers of the broker.
        name: prefix of its topics.
        folder: for its state and log.
        clients: that each wait for their order.
    """

    def __init__(self, stack: ExitStack, servers: str, name: str, folder: Path, clients: int) -> None:
        asyncio.run(write_sample_data(Settings(kafka_bootstrap_servers=servers, topic_prefix=name)))
        self.orders = 0
        self._generator = Generator()
        self._load = "-clients", str(clients), "-products", str(PRODUCTS)
        self._url, self._process = stack.enter_context(worker(servers, name, folder, *CORE))

    def turn(self, seconds: float) -> Turn:
        """Loads it for so long."""
        before = cpu_s(self._process)
        row = self._generator.run("orders", [self._url], self._load, seconds)
        used = cpu_s(self._process) - before
        if row["errors"]:
            raise RuntimeError(f"requests failed: {row['errors']}")
        self.orders += row["ok"]
        return Turn(row["per_second"], 1000 * used / row["ok"], self.rss_mib)

    @property
    def rss_mib(self) -> float:
        """Resident memory, MiB."""
        return self._process.memory_info().rss / MIB

    def fill(self, orders: int) -> None:
        """Loads it until it holds so many orders, and prints how it goes."""
        while self.orders < orders:
            found = self.turn(min(_SLICE_S, max(1.0, (orders - self.orders) / 2000)))
            print(_line(f"{self.orders:,} orders", found), flush=True)


def measure(servers: str, folder: Path, args: argparse.Namespace) -> str:
    """Runs the measurement. Returns the table, as Markdown."""
    with ExitStack() as stack:
        many = Loaded(stack, servers, "many-", folder, args.clients)
        many.fill(args.many)
        few = Loaded(stack, servers, "few-", folder, args.clients)
        few.fill(args.few)
        held = few.orders, many.orders
        turns: dict[str, list[Turn]] = {"few": [], "many": []}
        for number in range(args.pairs):
            both = [("few", few), ("many", many)]
            for name, loaded in both if number % 2 == 0 else reversed(both):
                turns[name].append(loaded.turn(args.seconds))
                print(_line(name, turns[name][-1]), flush=True)
    return render(held, turns["few"], turns["many"], args)


def render(held: tuple[int, int], few: Sequence[Turn], many: Sequence[Turn], args: argparse.Namespace) -> str:
    """The table, as Markdown."""
    made = f"{datetime.now(UTC).date().isoformat()}, `{revision(ROOT)}`, {machine()}."
    lines = [
        f"{made} {len(few)} pairs in alternation, turns of {args.seconds:g} s, {args.clients} clients.",
        "",
        "| orders held before the turns | orders/s | CPU ms an order | RSS |",
        "| --- | --- | --- | --- |",
    ]
    for count, turns in zip(held, (few, many), strict=True):
        rate, cpu = median(t.rate for t in turns), median(t.cpu_ms for t in turns)
        lines.append(f"| {count:,} | {rate:,.0f} | {cpu:.3f} | {turns[-1].rss_mib:.0f} MiB |")
    rates = median(m.rate / f.rate for f, m in zip(few, many, strict=True))
    cpus = median(m.cpu_ms / f.cpu_ms for f, m in zip(few, many, strict=True))
    lines.append(f"| many : few, median of the pairs | {rates:.2f} | {cpus:.2f} | |")
    return "\n".join(lines) + "\n"


def _line(what: str, turn: Turn) -> str:
    return f"{what:<20}{turn.rate:>8.0f}/s{turn.cpu_ms:>8.3f} ms{turn.rss_mib:>7.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--many", type=int, default=1_000_000, help="orders (default: %(default)s)")
    parser.add_argument("--few", type=int, default=10_000, help="orders (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=256, help="(default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=6, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8, help="of a turn (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/evidence.md")
    args = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it retries while topics are new, and says so each time
    with (
        tempfile.TemporaryDirectory() as home,
        Cluster(Path(home), heap_mb=BROKER_HEAP_MB, jvm=BROKER_JVM) as cluster,
    ):
        table = measure(cluster.bootstrap_servers, Path(home), args)
    print(f"\n{table}")
    if args.write:
        put(f"{table}\n", NAME, PAGE)


if __name__ == "__main__":
    main()
