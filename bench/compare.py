"""Measures the order flow, alone or beside another system, on one machine and one broker, in alternation.

Starts a real Kafka, the systems, warms them up, measures rows in pairs and prints medians as tables.

    python -m bench.compare                                     ours alone: core, all services, core apart
    python -m bench.compare --against kafka-streams             the same flow on Kafka Streams
    python -m bench.compare --against restate --products 2      on Restate, orders for two products
    python -m bench.compare --against all                       all our services in a worker, beside the core alone
    python -m bench.compare --against ../other-checkout         another revision of ours
    python -m bench.compare --from run.json --write NAME        puts a run into docs/performance.md
"""

import argparse
import logging
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import psutil

from bench.comparison import kafka_streams, page, restate, rows
from bench.comparison.generator import NO_GO, Generator
from bench.comparison.kafka_streams import KafkaStreams
from bench.comparison.measuring import BROKER, Comparison
from bench.comparison.ours import LAYOUTS, Ours
from bench.comparison.processes import StartError
from bench.comparison.report import Report, render
from bench.comparison.restate import Restate
from bench.comparison.rows import Row
from bench.comparison.system import PRODUCTS, System
from ecosystem.embedded.kafka import Cluster, KafkaError

GUARANTEES = ("exactly_once", "at_least_once")
# As brokers in production run: code compiled in full, and a collector with short pauses.
BROKER_JVM = ("-XX:TieredStopAtLevel=4", "-XX:-UseSerialGC", "-XX:+UseG1GC")
BROKER_HEAP_MB = 1024
QUICK_WARM_UP_S = 15.0


def systems(args: argparse.Namespace, folder: Path, servers: str, layout: str) -> list[System]:
    """Returns ours in a layout, and the peer if there is one."""
    against, theirs = args.against, args.their_guarantee or args.guarantee
    name = "ours" if against else f"ours, {layout}"
    found: list[System] = [Ours(name, folder / f"ours-{layout}", servers, layout, args.guarantee)]
    if against == "kafka-streams":
        found.append(KafkaStreams(folder / "kafka-streams", servers, layout, theirs))
    elif against == "restate":
        found.append(Restate(folder / "restate"))
    elif against in LAYOUTS:
        found.append(Ours(f"ours, {against}", folder / f"theirs-{against}", servers, against, theirs))
    elif against:
        found.append(Ours("theirs", folder / "theirs", servers, layout, theirs, Path(against).resolve()))
    return found


def compare(args: argparse.Namespace, cluster: Cluster, folder: Path, layout: str) -> Report:
    """Measures one layout. Raises `StartError`."""
    generator = Generator()
    if generator.is_fallback:
        print(NO_GO, file=sys.stderr)
    with ExitStack() as stack:
        measured = systems(args, folder, cluster.bootstrap_servers, layout)
        for system in measured:
            stack.callback(system.stop)
            if system.uses_broker:
                system.processes.watch(BROKER, cluster.pid(1))
            print(f"start of {system.name}", flush=True)
            system.start()
            print(f"{system.name}: first outcome after {system.first_answer_s} s", flush=True)
        print(f"about {estimate(args, measured) / 60:.0f} minutes from here", flush=True)
        comparison = Comparison(measured, generator, args.products, lambda line: print(line, flush=True))
        comparison.warm_up(lambda system: system.warm_up_s if args.warm_up is None else args.warm_up)
        comparison.measure(chosen_rows(args), args.seconds, args.pairs)
        return {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "pairs": args.pairs,
            "seconds": args.seconds,
            "products": args.products,
            "generator": "bench/load.py" if generator.is_fallback else "Go",
            "systems": {s.name: {"versions": s.versions(), "first_answer_s": s.first_answer_s} for s in measured},
            "rows": comparison.measured,
        }


def chosen_rows(args: argparse.Namespace) -> list[Row]:
    usual = rows.QUICK if args.quick else rows.USUAL if args.against else rows.ALONE
    return rows.chosen(args.rows.split(",") if args.rows else usual)


def estimate(args: argparse.Namespace, measured: list[System]) -> float:
    """Returns about how many seconds the measurements take."""
    warm_up = sum(system.warm_up_s if args.warm_up is None else args.warm_up for system in measured)
    return warm_up + args.pairs * len(measured) * sum(row.takes_s(args.seconds) for row in chosen_rows(args))


def machine() -> str:
    """Describes this machine: cores, memory, system."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release().split('-')[0]}"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--against",
        default="",
        metavar="PEER",
        help=f"kafka-streams, restate, a layout ({', '.join(LAYOUTS)}) or a checkout",
    )
    parser.add_argument("--layout", choices=LAYOUTS, action="append", help="(default: core; alone core, all, apart)")
    parser.add_argument("--guarantee", choices=GUARANTEES, default=GUARANTEES[0], help="(default: %(default)s)")
    parser.add_argument("--their-guarantee", choices=GUARANTEES, help="of the peer (default: as ours)")
    parser.add_argument("--rows", metavar="A,B", help=f"of {', '.join(rows.ROWS)}")
    parser.add_argument("--seconds", type=float, help="of each row (default: 8, with --quick 5)")
    parser.add_argument("--pairs", type=int, help="measurements of each row and system (default: 3, with --quick 1)")
    parser.add_argument("--products", type=int, default=PRODUCTS, help="orders are for so many (default: %(default)s)")
    parser.add_argument("--warm-up", type=float, metavar="S", help="of each system (default: 10, a JVM 40)")
    parser.add_argument("--quick", action="store_true", help="few rows, once: three minutes")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the measurements; with several layouts a file for each"
    )
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="measure nothing: use this JSON")
    parser.add_argument("--write", metavar="NAME", help="put the tables into docs/performance.md, as results of NAME")
    args = parser.parse_args(arguments)
    if args.rows and (unknown := {*args.rows.split(",")} - {*rows.ROWS}):
        parser.error(f"--rows: there is no row {', '.join(sorted(unknown))}; there are {', '.join(rows.ROWS)}")
    if not 1 <= args.products <= PRODUCTS:
        parser.error(f"--products is from 1 to {PRODUCTS}")
    if args.against not in {"", "kafka-streams", "restate", *LAYOUTS} and not Path(args.against, "ecosystem").is_dir():
        parser.error(f"--against: {args.against!r} is neither a peer, a layout, nor the folder of a checkout")
    args.seconds = args.seconds or (5 if args.quick else 8)
    args.pairs = args.pairs or (1 if args.quick else 3)
    if args.quick and args.warm_up is None:
        args.warm_up = QUICK_WARM_UP_S
    args.layout = args.layout or (["core"] if args.against or args.quick else ["core", "all", "apart"])
    if args.write and not args.source and len(args.layout) > 1:
        parser.error("--write needs one --layout: each has a place of its own")
    return args


def run(args: argparse.Namespace) -> None:
    if args.source:
        reports = [page.load(args.source)]
    else:
        missing = {"kafka-streams": kafka_streams.missing, "restate": restate.missing}.get(args.against, lambda: None)()
        if missing:
            raise StartError(missing)
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as home,
            Cluster(Path(home, "kafka"), heap_mb=BROKER_HEAP_MB, jvm=BROKER_JVM) as cluster,
        ):
            reports = [compare(args, cluster, Path(home), layout) for layout in args.layout]
    for layout, report in zip(args.layout, reports, strict=False):
        print(f"\n{render(report)}", flush=True)
        if args.json:
            several = len(reports) > 1
            page.save(report, args.json.with_stem(f"{args.json.stem}-{layout}") if several else args.json)
        if args.write:
            page.write(report, args.write)


def main() -> None:
    args = parse()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it retries while topics are new, and says so each time
    try:
        run(args)
    except (StartError, KafkaError, page.UnknownResult) as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
