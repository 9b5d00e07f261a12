"""Rounds of faults under load, each followed by an audit, in layouts of the workers."""

import random
import secrets
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from ecosystem.services import CORE
from runtime.common.settings import Guarantee
from tests.chaos.books import Books, Violations
from tests.chaos.brokers import Brokers
from tests.chaos.faults import Faults, schedule
from tests.chaos.fleet import Fleet
from tests.chaos.load import Load
from tests.workers import Deployment

EACH = tuple((name,) for name in CORE)


@dataclass(frozen=True, slots=True)
class Layout:
    """Compositions of the workers, their guarantee, and the load in orders a second."""

    name: str
    compositions: tuple[tuple[str, ...], ...]
    rate: float
    guarantee: Guarantee = Guarantee.EXACTLY_ONCE


LAYOUTS = (
    Layout("two-composed", (CORE,) * 2, 50),
    Layout("apart", EACH * 2, 25),
    Layout("three-composed", (CORE,) * 3, 40),
    Layout("in-pairs", (("orders", "details"), ("fraud", "inventory")) * 2, 30),
    Layout("at-least-once", (CORE,) * 2, 50, Guarantee.AT_LEAST_ONCE),
    Layout("at-least-once-apart", EACH * 2, 25, Guarantee.AT_LEAST_ONCE),
)
ORDERS_AT_LEAST = 60
"""Orders that must be acknowledged before the first fault of a round, and again after the last one."""

MOST_WORKERS = 9
"""Workers of the largest layout, and one that a fault adds."""


@dataclass
class Report:
    """The outcome of a campaign of one layout."""

    layout: str
    rounds: int = 0
    sent: int = 0
    acknowledged: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    slow_stops: list[str] = field(default_factory=list)
    changes: int = 0
    """Acknowledged changes of products."""
    around: str = ""
    """Counts of the audit for the services other than the core."""
    violations: Violations = field(default_factory=Violations)

    def lines(self) -> list[str]:
        found = self.violations
        counts = ", ".join(f"{len(all_)} {kind}" for kind, all_ in vars(found).items())
        return [
            f"{self.layout}: {self.rounds} rounds, orders: {self.sent} sent, {self.acknowledged} acknowledged, "
            + counts,
            f"  faults: {_counts(self.faults)}",
            *([f"  around the core: {self.around}"] if self.around else []),
            f"  POSTs that were not acknowledged: {_counts(self.refused)}",
            f"  GETs of acknowledged orders: {_counts(self.answers)}",
            *(f"  a worker ended itself, {n} times: {why}" for why, n in self.exits.items()),
            *(f"  slow to stop: {stop}" for stop in self.slow_stops),
            *(
                f"  VIOLATION {kind}: {what}"
                for kind, all_ in vars(found).items()
                for what in [*all_[:10], *([f"and {len(all_) - 10} more"] if len(all_) > 10 else [])]
            ),
        ]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counter.items())) or "none"


async def campaign(
    brokers: Brokers,
    folder: Path,
    layout: Layout,
    rng: random.Random,
    *,
    faults_a_round: int = 5,
    enough: Callable[[int], bool],
    kinds: Collection[str] | None = None,
    say: Callable[[str], None] = print,
    **settings: Any,
) -> Report:
    """Runs rounds until `enough(rounds)` is true or a promise is broken. The logs of the workers are in `folder`."""
    report = Report(layout.name)
    prefix = f"chaos-{secrets.token_hex(4)}-"
    settings = {
        "processing_guarantee": layout.guarantee.value,
        "replication_factor": len(brokers.cluster.nodes),
        # Sometimes shorter than a pause: a worker that resumes has deadlines due that another has fired.
        "validation_deadline_s": rng.choice((6, 300)),
        **settings,
    }
    lanes = (brokers.lane(n) for n in count())
    async with (
        Deployment(brokers.servers, prefix, folder) as deployment,
        Fleet(deployment, *layout.compositions, lanes=lanes, **settings) as fleet,
    ):
        # Orders have a random generator of their own: their number depends on the machine, the schedule must not.
        load, faults = Load(fleet, random.Random(rng.random()), layout.rate), Faults(fleet, brokers, say)
        possible = sorted(faults.kinds & set(kinds or faults.kinds))
        await load.stock()
        async with Books(deployment, layout.guarantee) as books:
            while not enough(report.rounds) and not report.violations:
                report.rounds += 1
                plan = schedule(rng, possible, len(fleet.processes), faults_a_round)
                try:
                    async with load.running():
                        await load.more(ORDERS_AT_LEAST)
                        await faults.happen(plan)
                        await load.more(ORDERS_AT_LEAST)
                    await fleet.ready()
                    report.violations = await books.audit(load)
                except AssertionError as error:
                    report.violations = await books.audit(load)
                    report.violations.wrong.append(str(error))
                report.slow_stops = [text for text, excused in faults.slow_stops() if excused]
                unexcused = [text for text, excused in faults.slow_stops() if not excused]
                report.violations.wrong += fleet.crashes + faults.stuck + unexcused
                say(f"round {report.rounds} of {layout.name}: {load.sent} sent, {len(load.acknowledged)} acknowledged")
    report.sent, report.acknowledged = load.sent, len(load.acknowledged)
    report.faults, report.refused, report.answers = faults.done, load.refused, load.answers
    report.exits = fleet.exits
    return report
