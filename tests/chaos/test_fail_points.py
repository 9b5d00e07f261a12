"""A worker crashes, or pauses for longer than its session, at each fail point of commit and rebalance in turn.

Three workers go through the fail points at once, under load. A fourth worker is left undisturbed.
"""

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Iterable
from itertools import count

from ecosystem.services import CORE
from runtime.common.failpoints import POINTS
from runtime.common.settings import Guarantee
from tests.chaos.books import Books
from tests.chaos.fleet import Fleet, Process
from tests.chaos.load import Load
from tests.workers import Deployment, until

SESSION_S = 2.0
SILENCE_S = 3.5

PATIENCE_S = 20.0
"""Seconds after which a rebalance is forced, if its fail point was not reached by itself."""

REBALANCE = [point for point in POINTS if point.startswith("rebalance.")]
AT_LEAST_ONCE = ["commit.redo", "commit.written", "commit.cleared"]
COMMIT = [p for p in POINTS if p.startswith(("batch.", "commit.", "apply.")) and p not in AT_LEAST_ONCE]

Life = dict[str, str]
"""Actions by fail point of one process."""


def crashes(points: Iterable[str]) -> list[Life]:
    """One process for each fail point."""
    return [{point: f"crash@{1 if point in REBALANCE else 3}"} for point in points]


def pauses(points: Iterable[str]) -> list[Life]:
    """One process for all fail points: rebalances are rare, batches frequent, and each pause follows a full restore."""
    takeovers, batches = count(1), count(3, 10)
    return [{p: f"pause({SILENCE_S})@{next(takeovers if p in REBALANCE else batches)}" for p in points}]


@contextlib.asynccontextmanager
async def taking_over(worker: Process) -> AsyncIterator[None]:
    """Forces rebalances: an interrupted one has not passed all of its fail points."""

    async def again() -> None:
        while True:
            await asyncio.sleep(PATIENCE_S)
            worker.tell(signal.SIGSTOP)
            await asyncio.sleep(SILENCE_S)
            worker.tell(signal.SIGCONT)

    task = asyncio.create_task(again())
    try:
        yield
    finally:
        task.cancel()
        worker.tell(signal.SIGCONT)


async def live(fleet: Fleet, *lives: Life, **settings) -> None:
    """Runs a worker once for each life, always on the same state directory."""
    worker = fleet.make(CORE, **settings)
    worker.supervised = False
    fleet.processes.append(worker)
    for life in lives:
        worker.environment["FAIL_POINTS"] = ",".join(f"{point}={action}" for point, action in life.items())
        start = worker.log.stat().st_size if worker.log.exists() else 0
        worker.start()
        for point, action in life.items():
            crash = action.startswith("crash")
            words = f"fail point {'reached' if crash else 'passed'} point={point} "

            def ended_or_said(words: str = words, start: int = start) -> bool:
                return not worker.running or words in worker.log.read_bytes()[start:].decode(errors="replace")

            async with taking_over(worker) if point in REBALANCE else contextlib.nullcontext():
                await until(ended_or_said, words)
            if crash:
                await until(lambda: not worker.running, f"end at {point}")
                assert worker.popen.returncode == -signal.SIGKILL, f"ended before {point}, see {worker.log}"
            else:
                assert worker.running, f"ended before {point}, see {worker.log}"
        await worker.end(signal.SIGTERM)
    fleet.processes.remove(worker)


async def hold(deployment: Deployment, guarantee: Guarantee, rate: float, *workers: tuple[list[Life], dict]) -> None:
    settings = {"session_timeout_s": SESSION_S, "heartbeat_interval_s": 0.5, "processing_guarantee": guarantee.value}
    async with Fleet(deployment, CORE, **settings) as fleet:
        load = Load(fleet, random.Random(1), rate)
        await load.stock()
        async with load.running(), asyncio.TaskGroup() as group:
            for lives, changes in workers:
                group.create_task(live(fleet, *lives, **changes))
        await fleet.ready()
        async with Books(deployment, guarantee) as books:
            violations = await books.audit(load)
        print(f"sent {load.sent}, acknowledged {len(load.acknowledged)}")
        assert not violations
        assert fleet.exits.total() + len(fleet.crashes) == 0
        assert len(load.acknowledged) > 100


async def test_exactly_once_holds_when_a_worker_crashes_or_pauses_at_any_fail_point(deployment: Deployment):
    # The transaction of a paused worker has timed out when it resumes, or is still open, and it may end it.
    short, long = {"transaction_timeout_s": 2}, {"transaction_timeout_s": 20}
    await hold(
        deployment,
        Guarantee.EXACTLY_ONCE,
        30,
        (crashes([*REBALANCE, *COMMIT[:4]]), short),
        ([*pauses([*REBALANCE, "commit.sent", "commit.offsets"]), *crashes(COMMIT[4:7])], short),
        ([*pauses(COMMIT), *crashes(COMMIT[7:])], long),
    )


async def test_at_least_once_loses_nothing_when_a_worker_crashes_or_pauses_at_any_fail_point(deployment: Deployment):
    steps = ["batch.processed", *AT_LEAST_ONCE, "commit.done", "apply.store", "apply.done"]
    # So few orders a second that a worker often has no batch for longer than `AtLeastOnce.CLEAR_S`.
    rate = 4
    await hold(deployment, Guarantee.AT_LEAST_ONCE, rate, (crashes(steps), {}), (pauses(steps), {}))
