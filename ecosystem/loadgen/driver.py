"""Runs sample orders at a steady rate."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from ecosystem.loadgen.clients import Clients
from ecosystem.loadgen.order import OrderScenario
from ecosystem.loadgen.products import PAUSE_S, ProductChanges
from ecosystem.loadgen.retries import Mismatch, RetryPolicy, Stopped
from ecosystem.loadgen.script import script
from ecosystem.loadgen.tally import Tally

_MAX_IN_FLIGHT = 1000
"""Orders whose results are awaited at the same time."""


class Driver:
    """Runs sample orders and changes of products, each in a task of its own.

    Arguments:
        clients: clients of the services.
        random: source of all random choices.
        on_mismatch: called with the text of every mismatch.
        ghosts: whether to check in also for orders that do not exist.
        cancelled: share of orders that the client cancels.
        timeout_s: time limit of each request and each awaited state, in seconds; see `RetryPolicy`.
        tally: counts the results; by default a new one.
    """

    def __init__(
        self,
        clients: Clients,
        random: Random,
        on_mismatch: Callable[[str], None],
        *,
        ghosts: bool,
        cancelled: float = 0.0,
        timeout_s: float = 60.0,
        tally: Tally | None = None,
    ) -> None:
        self.tally = tally or Tally()
        self._clients = clients
        self._random = random
        self._random_products = Random(random.random())  # separate: the orders of a seed must not depend on time
        self._on_mismatch = on_mismatch
        self._ghosts = ghosts
        self._cancelled = cancelled
        self._timeout_s = timeout_s

    async def run(self, rate: float, count: int | None, stop: asyncio.Event) -> None:
        """Posts `rate` orders per second, `count` in all or until `stop`.

        Returns when all results have been read back; after `stop`, when the open requests are answered. When it is
        cancelled, these are left unfinished.
        """
        orders_done = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._change_products(orders_done))
            await self._run_orders(rate, count, stop)
            orders_done.set()

    async def _run_orders(self, rate: float, count: int | None, stop: asyncio.Event) -> None:
        slots = asyncio.Semaphore(_MAX_IN_FLIGHT)
        retries = RetryPolicy(self.tally, stop, self._timeout_s)
        started = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            while count is None or self.tally.posted < count:
                try:
                    await retries.pause(started + self.tally.posted / rate - time.monotonic())
                except Stopped:
                    break
                await slots.acquire()
                number = self.tally.posted
                plan = script(number, self._random, self._clients.currency, self._cancelled)
                self.tally.posted += 1
                scenario = OrderScenario(number, plan, self._clients, retries, self.tally)
                name = str(plan.order.id)
                tasks.create_task(self._record(name, scenario.run())).add_done_callback(lambda _: slots.release())
                if plan.ghost and self._ghosts:
                    tasks.create_task(self._record(f"ghost beside {name}", scenario.check_in_for_ghost()))

    async def _change_products(self, stop: asyncio.Event) -> None:
        if self._clients.products is None:
            return
        retries = RetryPolicy(self.tally, stop, self._timeout_s)
        changes = ProductChanges(
            self._clients.products, self._clients.orders, self._random_products, retries, self.tally
        )
        for number in itertools.count():
            await self._record(f"product change {number}", changes.change(number))
            try:
                await retries.pause(PAUSE_S if number else PAUSE_S / 5)  # both kinds of changes occur soon
            except Stopped:
                return

    async def _record(self, name: str, scenario: Awaitable[None]) -> None:
        """Runs a scenario, and records its mismatch, or that it was stopped or cancelled."""
        try:
            await self._record_mismatch(name, scenario)
        except asyncio.CancelledError:
            self.tally.unfinished += 1
            raise

    async def _record_mismatch(self, name: str, scenario: Awaitable[None]) -> None:
        try:
            await scenario
        except* Mismatch as group:
            self.tally.mismatches.append(f"{name}: {_first(group)}")
            self._on_mismatch(self.tally.mismatches[-1])
        except* Stopped:
            self.tally.unfinished += 1


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
