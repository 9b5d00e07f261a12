"""Measures what metrics, and the board while it is watched, cost the core: one worker, one broker, in alternation.

The throughput of the core is the rate of orders that a worker with the core decides for clients that each wait for an
order before they place the next one, so that the worker's processor is the limit. A turn measures it, and the CPU time
of the worker's process for each order. Kinds of turns:

- `off`: the metrics are switched off (`bench.switchable`), and nobody watches the board.
- `metrics`: metrics as shipped, scraped once in each turn, as Prometheus does every 15 s.
- `watched`: the same, and one viewer watches the board, which runs in the worker of the core.
- `again`: like `off`. What it differs by from `off` is what the machine does: differences below that say nothing.

A round has one turn of each kind, every second one in reverse order, so that a trend of the machine does not count.

Turns of one kind differ by more than the kinds do. So, after the rounds, the CPU time of the board and of metrics is
measured where it is spent (`bench.attribution`), under the same load and with one viewer, and that of a scrape by
scrapes in a row without load.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil

from bench import switchable
from bench.compare import machine
from bench.comparison.generator import Generator
from bench.comparison.ours import ROOT, revision, write_sample_data
from bench.comparison.system import PRODUCTS
from ecosystem.clients.health import is_ready
from ecosystem.embedded.ports import free_ports
from ecosystem.services import CORE
from runtime.common.settings import Settings

Report = dict[str, Any]
"""What a run found: `turns` by kind, and how it was run."""

PAGE = ROOT / "docs" / "evidence.md"
NAME = "board-cost"
"""Of the markers in the page."""
_PREFIX = "cost-"
_WARM_UP_S = 20.0
_PAIRS = (("again", "off"), ("metrics", "off"), ("watched", "metrics"), ("watched", "off"))
"""Kinds that are compared: the second is the base."""
_SCRAPE = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus/2.42.0",
}
_SCRAPE_EVERY_S = 15.0
"""As in `monitoring/prometheus.yml`."""
_SCRAPES = 40
_SETTLE_S = 4.0
"""Seconds of load before each turn: a viewer's feed reads the past, and finds out what it can show. The same for all
kinds, so that their turns differ in nothing else."""
_ATTRIBUTED_S = 30.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of turn.

    Arguments:
        name: in tables and JSON.
        title: in the table for the page.
        metrics: whether metrics are counted, and scraped.
        viewers: of the board.
    """

    name: str
    title: str
    metrics: bool
    viewers: int


KINDS = (
    Kind("off", "core alone, metrics off", metrics=False, viewers=0),
    Kind("metrics", "metrics, scraped", metrics=True, viewers=0),
    Kind("watched", "metrics and board, one viewer", metrics=True, viewers=1),
    Kind("again", "core alone, metrics off, once more", metrics=False, viewers=0),
)


@contextmanager
def worker(servers: str, prefix: str, folder: Path, *services: str) -> Iterator[tuple[str, psutil.Process]]:
    """Runs a worker in a process of its own, whose metrics can be switched: its URL, and the process."""
    (port,) = free_ports(1)
    env = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "TOPIC_PREFIX": prefix,
        "UNKNOWN_PRODUCTS": "pass",
        "HTTP_PORT": str(port),
        "STATE_DIR": str(folder / prefix / "state"),
        switchable.FILE: str(_attributed(folder)),
    }
    with (folder / f"{prefix}log").open("w") as log:
        command = [sys.executable, "-m", "bench.switchable", "run", *services]
        process = subprocess.Popen(command, env=env, stdout=log, cwd=ROOT)
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
def _viewer(url: str) -> Iterator[None]:
    """A client that reads the events of the board in a process of its own, and does nothing with them."""
    reader = subprocess.Popen(["curl", "--silent", "--output", "/dev/null", f"{url}/board/events"])
    try:
        yield
    finally:
        reader.terminate()
        reader.wait()


@contextmanager
def _scraping(url: str, after_s: float) -> Iterator[None]:
    """Scrapes the metrics once. Raises `OSError` at the end if that failed."""
    failures: list[OSError] = []

    def scrape() -> None:
        try:
            _scrape(url)
        except OSError as error:
            failures.append(error)

    timer = threading.Timer(after_s, scrape)
    timer.start()
    try:
        yield
    finally:
        timer.join()
    if failures:
        raise failures[0]


def _scrape(url: str) -> None:
    """Reads the metrics as Prometheus does. Raises `OSError`."""
    with urllib.request.urlopen(urllib.request.Request(f"{url}/metrics", headers=_SCRAPE)) as response:
        response.read()


def _attributed(folder: Path) -> Path:
    """Path of the file with the CPU time that a worker attributed."""
    return folder / "attributed.json"


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process so far."""
    times = process.cpu_times()
    return times.user + times.system


def measure(servers: str, folder: Path, rounds: int, seconds: float, clients: int) -> Report:
    """Runs the rounds. Returns the report."""
    asyncio.run(write_sample_data(Settings(kafka_bootstrap_servers=servers, topic_prefix=_PREFIX)))
    turns: dict[str, list[dict[str, Any]]] = {kind.name: [] for kind in KINDS}
    generator = Generator()
    load = "-clients", str(clients), "-products", str(PRODUCTS)
    with worker(servers, _PREFIX, folder, *CORE, "board") as (url, process):
        generator.run("orders", [url], load, _WARM_UP_S)
        print(f"{'round':<7}{'kind':<10}{'orders/s':>9}{'CPU ms an order':>17}")
        for number in range(rounds):
            for kind in KINDS if number % 2 == 0 else reversed(KINDS):
                found = _turn(generator, load, url, process, kind, seconds)
                turns[kind.name].append(found)
                shown = f"{found['per_second']:>9.0f}{found['cpu_ms']:>17.3f}"
                print(f"{number + 1:<7}{kind.name:<10}{shown}", found["errors"] or "", flush=True)
        attributed = _attribute(generator, load, url, process, folder)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "revision": revision(ROOT),
        "seconds": seconds,
        "clients": clients,
        "turns": turns,
        "attributed": attributed,
    }


def _attribute(
    generator: Generator, load: Sequence[str], url: str, process: psutil.Process, folder: Path
) -> dict[str, float]:
    """Seconds of CPU time of `board`, `metrics`, `scrape` (one) and `process`, and how many `orders` were decided."""
    before = cpu_s(process)
    for _ in range(_SCRAPES):
        _scrape(url)
    scrape = (cpu_s(process) - before) / _SCRAPES
    process.send_signal(switchable.ATTRIBUTE)
    with _viewer(url):
        generator.run("orders", [url], load, _SETTLE_S)
        _read_attribution(process, folder)  # counts from zero
        row = generator.run("orders", [url], load, _ATTRIBUTED_S)
        return {**_read_attribution(process, folder), "scrape": scrape, "orders": row["ok"]}


def _read_attribution(process: psutil.Process, folder: Path) -> dict[str, float]:
    """Seconds of CPU time by what they were spent on, since the call before."""
    file = _attributed(folder)
    file.unlink(missing_ok=True)
    process.send_signal(switchable.ATTRIBUTE)
    while not file.exists():
        if not process.is_running():
            raise RuntimeError(f"the worker ended: see {folder}")
        time.sleep(0.05)
    found: dict[str, float] = json.loads(file.read_text())
    return found


def _turn(
    generator: Generator, load: Sequence[str], url: str, process: psutil.Process, kind: Kind, seconds: float
) -> dict[str, Any]:
    process.send_signal(switchable.ON if kind.metrics else switchable.OFF)
    with ExitStack() as stack:
        for _ in range(kind.viewers):
            stack.enter_context(_viewer(url))
        generator.run("orders", [url], load, _SETTLE_S)
        if kind.metrics:
            stack.enter_context(_scraping(url, seconds / 2))
        before = cpu_s(process)
        row = generator.run("orders", [url], load, seconds)
        used = cpu_s(process) - before
    return {"per_second": row["per_second"], "cpu_ms": 1000 * used / max(1, row["ok"]), "errors": row["errors"]}


def lost(report: Report, kind: str, base: str, figure: str) -> list[float]:
    """Percent of each round by which a kind is worse than its base: fewer orders, or more CPU time for each."""
    pairs = zip(report["turns"][kind], report["turns"][base], strict=True)
    worse = -1 if figure == "per_second" else 1
    return [100 * worse * (own[figure] / other[figure] - 1) for own, other in pairs]


def render(report: Report) -> str:
    """Returns the tables, as Markdown."""
    turns: Mapping[str, Sequence[Mapping[str, Any]]] = report["turns"]
    rounds = len(turns[KINDS[0].name])
    made = f"{report['date']}, `{report['revision']}`, {report['machine']}. {rounds} rounds in alternation, turns of "
    lines = [
        f"{made}{report['seconds']:g} s, {report['clients']} clients.",
        "",
        "| medians of the turns | orders/s | CPU ms an order, worker of the core |",
        "| --- | --- | --- |",
    ]
    for kind in KINDS:
        rate, cpu = (median(t[figure] for t in turns[kind.name]) for figure in ("per_second", "cpu_ms"))
        lines.append(f"| {kind.title} | {rate:,.0f} | {cpu:.3f} |")
    lines += [
        "",
        "| cost in the pairs of a round, median (quartiles) | of the orders/s | more CPU time an order |",
        "| --- | --- | --- |",
    ]
    for kind_name, base in _PAIRS:
        costs = (_spread(lost(report, kind_name, base, figure)) for figure in ("per_second", "cpu_ms"))
        lines.append(f"| {kind_name}, against {base} | {' | '.join(costs)} |")
    lines += ["", *_render_attributed(report["attributed"])]
    if errors := sum(sum(t["errors"].values()) for found in turns.values() for t in found):
        lines += ["", f"{errors:,} requests failed."]
    return "\n".join(lines) + "\n"


def _render_attributed(found: Mapping[str, float]) -> Iterator[str]:
    """Yields the lines of the table of attributed CPU time."""
    yield "| of the CPU time of the worker, measured where it is spent | µs an order | part |"
    yield "| --- | --- | --- |"
    scrapes = found["scrape"] * _ATTRIBUTED_S / _SCRAPE_EVERY_S
    parts = {
        "metrics": found["metrics"],
        f"scrapes, one every {_SCRAPE_EVERY_S:g} s, of {1000 * found['scrape']:.1f} ms each": scrapes,
        "board, one viewer": found["board"],
    }
    for name, seconds in {**parts, "together": sum(parts.values())}.items():
        yield f"| {name} | {1e6 * seconds / found['orders']:.1f} | {100 * seconds / found['process']:.2f} % |"
    yield f"| all | {1e6 * found['process'] / found['orders']:.1f} | |"


def _spread(percents: Sequence[float]) -> str:
    if len(percents) < 2:
        return f"{percents[0]:.1f} %"
    low, _, high = quantiles(percents, n=4, method="inclusive")
    return f"{median(percents):.1f} % ({low:.1f} to {high:.1f})"
