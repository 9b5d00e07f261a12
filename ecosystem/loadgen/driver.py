"""Orders at a steady rate."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from ecosystem.loadgen.clients import Clients
from ecosystem.loadgen.order import OrderScenario
from ecosystem.loadgen.patience import Mismatch, RetryDeadline, Stopped
from ecosystem.loadgen.products import PAUSE_S, ProductChanges
from ecosystem.loadgen.script import script
from ecosystem.loadgen.tally import Tally

_MOST_IN_FLIGHT = 1000


class Driver:
    """Walks sample orders through, each on its own.

    Arguments:
        clients: whom it talks to.
        ghosts: whether somebody checks in for orders that do not exist, too.
        complain: told of every mismatch.
        patience_s: how long anything may take; see `RetryDeadline`.
    """

    def __init__(
        self,
        clients: Clients,
        random: Random,
        complain: Callable[[str], None],
        *,
        ghosts: bool,
        patience_s: float = 60.0,
    ) -> None:
        self.tally = Tally()
        self._clients = clients
        self._random = random
        self._random_products = Random(random.random())  # of its own: the orders of a seed do not depend on time
        self._complain = complain
        self._ghosts = ghosts
        self._patience_s = patience_s

    async def run(self, rate: float, count: int | None, stop: asyncio.Event) -> None:
        """Posts `rate` orders a second, `count` in all or until `stop`.

        Returns when all that is to come of them has been read back; at `stop`, when nobody waits for an answer.
        """
        ordered = asyncio.Event()
        async with asyncio.TaskGroup() as beside:
            beside.create_task(self._change_products(ordered))
            await self._order(rate, count, stop)
            ordered.set()

    async def _order(self, rate: float, count: int | None, stop: asyncio.Event) -> None:
        room = asyncio.Semaphore(_MOST_IN_FLIGHT)
        patience = RetryDeadline(self.tally, stop, self._patience_s)
        started = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            while count is None or self.tally.posted < count:
                try:
                    await patience.rest(started + self.tally.posted / rate - time.monotonic())
                except Stopped:
                    break
                await room.acquire()
                number, planned = self.tally.posted, script(self.tally.posted, self._random, self._clients.currency)
                self.tally.posted += 1
                way = OrderScenario(number, planned, self._clients, patience, self.tally)
                name = str(planned.order.id)
                tasks.create_task(self._follow(name, way.walk())).add_done_callback(lambda _: room.release())
                if planned.ghost and self._ghosts:
                    tasks.create_task(self._follow(f"ghost beside {name}", way.ghost()))

    async def _change_products(self, stop: asyncio.Event) -> None:
        if self._clients.products is None:
            return
        patience = RetryDeadline(self.tally, stop, self._patience_s)
        changes = ProductChanges(
            self._clients.products, self._clients.orders, self._random_products, patience, self.tally
        )
        for number in itertools.count():
            await self._follow(f"product change {number}", changes.change(number))
            try:
                await patience.rest(PAUSE_S if number else PAUSE_S / 5)  # both kinds are soon seen
            except Stopped:
                return

    async def _follow(self, name: str, way: Awaitable[None]) -> None:
        try:
            await way
        except* Mismatch as group:
            self.tally.mismatches.append(f"{name}: {_first(group)}")
            self._complain(self.tally.mismatches[-1])
        except* Stopped:
            self.tally.unfinished += 1


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
