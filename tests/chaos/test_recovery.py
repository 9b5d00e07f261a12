"""State on disk survives a kill. A lost disk is restored from the changelogs, with visible progress."""

import asyncio
import re
import shutil
import signal

import aiohttp

from bench.changelogs import Changelogs
from ecosystem.services import CORE
from tests.chaos.fleet import READY_S, Fleet, Process
from tests.workers import Deployment, Remote

ORDERS = 12_500
SESSION_S = 20.0
"""Seconds: a worker that stalls for a session restores again from the start."""
LOOKS = 5
"""Attempts to observe a restore in progress: a fast one may be over before the second look."""


async def progress_until_ready(deployment: Deployment, process: Process) -> list[dict]:
    """The restore progress that `/readyz` returned, without repetitions."""
    told: list[dict] = []
    async with asyncio.timeout(READY_S):
        while True:
            try:
                answer = await deployment.ask(Remote(process.url), "GET", "/readyz")
            except aiohttp.ClientError:
                continue
            takeover = answer.json()["takeover"]
            if takeover and takeover not in told:
                told.append(takeover)
            if answer.status == 200:
                return told
            await asyncio.sleep(0.005)


def restored(process: Process) -> int:
    """Restored records of the last rebalance in the log."""
    return int(re.findall(r"partitions restored .*restored=(\d+)", process.log.read_text())[-1])


async def test_a_state_directory_survives_a_kill_and_is_restored_when_lost(deployment: Deployment):
    changelogs = Changelogs(deployment.settings())
    ids = await changelogs.write(ORDERS, batch=250)
    records = sum([len(await deployment.records(table.changelog)) for table in changelogs.topology.tables.values()])
    assert records > 4 * ORDERS
    async with Fleet(deployment, CORE, session_timeout_s=SESSION_S) as fleet:
        (worker,) = fleet.processes
        assert restored(worker) == records

        await worker.end(signal.SIGKILL)
        worker.start()
        await fleet.ready()
        assert restored(worker) == 0, "all of it was on the disk"

        for _ in range(LOOKS):
            await worker.end(signal.SIGTERM)
            shutil.rmtree(worker.state / "tables")
            worker.start()
            told = await progress_until_ready(deployment, worker)
            assert restored(worker) == records
            if len(told) > 1:
                break

        left = [t["left"] for t in told]
        assert left == sorted(left, reverse=True), "it goes down"
        assert left[0] > left[-1]
        counts = [t["restored"] for t in told]
        assert counts == sorted(counts)
        # The remaining count is in offsets: records and transaction markers, a few for each batch.
        assert all(records <= t["restored"] + t["left"] <= 2 * records for t in told)
        for id_ in ids:
            outcome = await deployment.outcome(Remote(worker.url), id_)
            assert (outcome["id"], outcome["state"], len(outcome["verdicts"])) == (id_, "VALIDATED", 3)
