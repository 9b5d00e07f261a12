"""Measures how long reads wait when one of two workers is killed or stopped.

Starts a broker and two workers of the core, and places orders. Reads the orders of the victim through the other worker,
while the victim is ended and until the other worker owns its partitions. Without standby replicas, then with one.

    python -m bench.failover [--orders 1000]
"""

import argparse
import asyncio
import secrets
import signal
import tempfile
import time
from pathlib import Path
from statistics import quantiles

from ecosystem.embedded.kafka import Cluster
from ecosystem.services import CORE
from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY
from tests.chaos.fleet import SESSION_S, Fleet
from tests.chaos.reads import Reads
from tests.workers import Deployment, Remote, until


async def measure(servers: str, home: Path, orders: int, replicas: int, fault: signal.Signals) -> str:
    """Runs one case. Returns its row of the table."""
    prefix = f"t-{secrets.token_hex(4)}-"
    async with (
        Deployment(servers, prefix, home / prefix) as deployment,
        Fleet(deployment, CORE, CORE, standby_replicas=replicas) as fleet,
    ):
        survivor_process, victim_process = fleet.processes
        survivor, victim = Remote(survivor_process.url), Remote(victim_process.url)
        await deployment.send(WAREHOUSE_INVENTORY, StockLevel(product="JUMPERS", count=10**9))

        async def place(number: int) -> dict[str, object]:
            body = {"id": f"o-{number}", "customerId": number, "product": "JUMPERS", "quantity": 1, "price": 1}
            await deployment.post(survivor, **body)
            outcome: dict[str, object] = await deployment.outcome(survivor, f"o-{number}")
            return outcome

        outcomes = {str(o["id"]): o for o in await asyncio.gather(*(place(n) for n in range(orders)))}
        await until(lambda: is_balanced(deployment, replicas, survivor, victim), "partitions balanced", every=0.2)
        reads, stop = Reads(deployment.http, survivor_process.url, outcomes), asyncio.Event()
        clients = asyncio.create_task(reads.run(list(outcomes), stop))
        await asyncio.sleep(3)
        victim_process.wanted = False
        victim_process.tell(fault)
        began = time.monotonic()
        await until(lambda: owns_partitions(deployment, survivor, 4), "partitions owned", every=0.05)
        took = time.monotonic() - began
        await asyncio.sleep(1)
        stop.set()
        await clients
        p99 = quantiles(reads.seconds, n=100)[98]
        return (
            f"{fault.name:<8} {replicas:>8} {took:>10.1f} s {len(reads.seconds):>7} {1000 * p99:>7.0f} ms "
            f"{max(reads.seconds):>8.2f} s {reads.marked:>12} {reads.oldest_s:>5} s {len(reads.wrong):>6}"
        )


async def is_balanced(deployment: Deployment, replicas: int, *workers: Remote) -> bool:
    """Whether each worker owns half of the partitions, and no standby replica lags."""
    states = [(await deployment.ask(w, "GET", "/readyz")).json() for w in workers]
    lags = [lag for state in states for lag in state["standby"].values()]
    return all(len(state["partitions"]) == 2 for state in states) and lags == [0] * 4 * replicas


async def owns_partitions(deployment: Deployment, worker: Remote, partitions: int) -> bool:
    body = (await deployment.ask(worker, "GET", "/readyz")).json()
    return len(body["partitions"]) == partitions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=1000, help="orders to place (default: %(default)s)")
    args = parser.parse_args()
    print(f"session timeout {SESSION_S:g} s, heartbeats every 1 s, 8 clients; the victim owned half of the orders")
    print(f"{'fault':<8} {'standbys':>8} {'failover':>12} {'reads':>7} {'p99':>10} {'longest':>10} ", end="")
    print(f"{'stale reads':>12} {'oldest':>7} {'wrong':>6}")
    with tempfile.TemporaryDirectory() as home, Cluster(Path(home)) as cluster:
        for fault in (signal.SIGKILL, signal.SIGSTOP):
            for replicas in (0, 1):
                row = asyncio.run(measure(cluster.bootstrap_servers, Path(home), args.orders, replicas, fault))
                print(row, flush=True)


if __name__ == "__main__":
    main()
