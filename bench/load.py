"""Posts orders at a steady rate (open loop) or from concurrent clients (closed loop), and measures latencies.

Each order is posted with an id chosen by the client, then its outcome is awaited: POST, GET …/validated. Prints one
line of JSON: orders per second, and percentiles of POST and of POST → VALIDATED in milliseconds. In an open loop
latencies count from the time at which the order was due, so that they include the delay of a slow server.

    python bench/load.py --url http://127.0.0.1:8080 --rate 50 --seconds 20
    python bench/load.py --url http://127.0.0.1:8080 --clients 64 --seconds 20
"""

import argparse
import asyncio
import itertools
import json
import random
import time
from collections import Counter

import aiohttp
import uvloop

from orders_service.settings import OrdersSettings
from schemas.identifiers import new_order_id

PRODUCTS = ("UNDERPANTS", "JUMPERS")
CHECKS = len(OrdersSettings().required_checks)
CUSTOMERS = 5000  # ids of sample customers; enough that no customer reaches the limit of the fraud check


class Load:
    """Runs single orders and collects their latencies in seconds, and errors by kind."""

    def __init__(self, session: aiohttp.ClientSession, urls: list[str]) -> None:
        self._session = session
        self._urls = urls
        self._turn = itertools.count()
        self.posted: list[float] = []
        self.validated: list[float] = []
        self.errors: Counter[str] = Counter()

    async def run_order(self, due: float) -> None:
        n = next(self._turn)
        url, id_ = self._urls[n % len(self._urls)], new_order_id()
        order = {
            "id": id_,
            "customerId": random.randint(1, CUSTOMERS),
            "product": PRODUCTS[n % 2],
            "quantity": 1,
            "price": 1,
        }
        try:
            async with self._session.post(f"{url}/v1/orders", json=order) as response:
                await response.read()
                if response.status != 201:
                    self.errors[f"POST {response.status}"] += 1
                    return
            posted = time.perf_counter() - due
            async with self._session.get(f"{url}/v1/orders/{id_}/validated?timeout=20000") as response:
                body = await response.json()
                if response.status != 200 or body["state"] != "VALIDATED" or len(body["verdicts"]) != CHECKS:
                    self.errors[f"GET {response.status}"] += 1
                    return
        except (aiohttp.ClientError, TimeoutError) as error:
            self.errors[type(error).__name__] += 1
            return
        self.posted.append(posted)
        self.validated.append(time.perf_counter() - due)


async def run_open_loop(load: Load, rate: float, seconds: float) -> None:
    start, in_flight = time.perf_counter(), set()
    for n in range(int(rate * seconds)):
        due = start + n / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(load.run_order(due))
        in_flight.add(task)
        task.add_done_callback(in_flight.discard)
    await asyncio.gather(*in_flight)


async def run_closed_loop(load: Load, clients: int, seconds: float) -> None:
    end = time.perf_counter() + seconds

    async def client() -> None:
        while (now := time.perf_counter()) < end:
            await load.run_order(now)

    await asyncio.gather(*(client() for _ in range(clients)))


def percentile(values: list[float], share: float) -> float:
    """Returns a percentile in milliseconds."""
    ordered = sorted(values) or [float("nan")]
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


async def run(args: argparse.Namespace) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30)) as session:
        load, start = Load(session, args.url), time.perf_counter()
        await (
            run_closed_loop(load, args.clients, args.seconds)
            if args.clients
            else run_open_loop(load, args.rate, args.seconds)
        )
        took = time.perf_counter() - start
    print(
        json.dumps(
            {
                "rate": args.rate,
                "clients": args.clients,
                "ok": len(load.validated),
                "per_second": round(len(load.validated) / took),
                "post_p50": percentile(load.posted, 0.5),
                "post_p99": percentile(load.posted, 0.99),
                "validated_p50": percentile(load.validated, 0.5),
                "validated_p99": percentile(load.validated, 0.99),
                "errors": dict(load.errors),
            }
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--url",
        action="append",
        required=True,
        help="base URL of a worker; may be repeated, orders are then posted in turn",
    )
    parser.add_argument("--rate", type=float, default=50, help="orders per second (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=0, help="concurrent clients, instead of a rate")
    parser.add_argument("--seconds", type=float, default=20, help="(default: %(default)s)")
    uvloop.run(run(parser.parse_args()))
