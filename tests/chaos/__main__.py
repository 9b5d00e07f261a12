"""`make chaos`: rounds of faults in every layout for a number of minutes. Exit code 1 if a promise is broken."""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import monotonic, strftime

from tests.chaos import services
from tests.chaos.books import Violations
from tests.chaos.brokers import brokers
from tests.chaos.campaign import LAYOUTS, MOST_WORKERS, Layout, Report, campaign
from tests.chaos.faults import KINDS

ALL = (*LAYOUTS, *services.LAYOUTS)

ROUNDS_A_LAYOUT = 5
"""Rounds in a row with the same workers and topics."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None, help="of the schedule: which faults, when, to whom")
    parser.add_argument("--layouts", nargs="*", choices=[layout.name for layout in ALL], help="all by default")
    parser.add_argument("--kinds", nargs="*", choices=sorted(KINDS), help="of faults; all by default")
    return parser.parse_args()


async def _run(options: argparse.Namespace, seed: int, folder: Path) -> list[Report]:
    end = monotonic() + 60 * options.minutes
    layouts = [layout for layout in ALL if not options.layouts or layout.name in options.layouts]
    reports: list[Report] = []
    async with brokers(folder / "kafka", lanes=MOST_WORKERS) as cluster:
        while monotonic() < end and not any(report.violations for report in reports):
            layout: Layout = layouts[len(reports) % len(layouts)]
            where, rng = folder / f"{len(reports)}-{layout.name}", random.Random(f"{seed}/{len(reports)}")

            def enough(rounds: int) -> bool:
                return rounds >= ROUNDS_A_LAYOUT or monotonic() > end

            if layout in services.LAYOUTS:
                report = await services.campaign(cluster.servers, where, layout, rng, enough=enough, say=_say)
            else:
                report = await campaign(cluster, where, layout, rng, enough=enough, kinds=options.kinds, say=_say)
            reports.append(report)
            print("\n".join(report.lines()), flush=True)
    return reports


def _say(line: str) -> None:
    print(strftime("%H:%M:%S"), line, flush=True)


def _total(reports: list[Report]) -> str:
    faults: Counter[str] = sum((report.faults for report in reports), Counter())
    by_kind = ", ".join(f"{kind} {n}" for kind, n in sorted(faults.items()))
    return (
        f"{sum(r.rounds for r in reports)} rounds, {faults.total()} faults ({by_kind}); "
        f"orders: {sum(r.sent for r in reports)} sent, {sum(r.acknowledged for r in reports)} acknowledged, "
        f"{sum(r.refused.total() for r in reports)} attempts refused or unanswered; "
        + ", ".join(f"{sum(len(getattr(r.violations, kind)) for r in reports)} {kind}" for kind in vars(Violations()))
    )


def main() -> int:
    options = _arguments()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"seed {seed}, logs in {folder}", flush=True)
    try:
        reports = asyncio.run(_run(options, seed, folder))
    except BaseException:
        print(f"Stopped half way. The logs are in {folder}, the seed was {seed}")
        raise
    print("\n" + "\n".join(line for report in reports for line in report.lines()))
    print(f"\n{_total(reports)}; seed {seed}")
    if any(report.violations for report in reports):
        print(f"A promise was broken. The logs are in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
