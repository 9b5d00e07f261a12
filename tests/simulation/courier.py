"""A service with a side effect: it reports each decided order to an unreliable system outside Kafka."""

import asyncio
from collections import Counter, defaultdict
from random import Random

from runtime.errors import SideEffectDeferred, SideEffectRejected
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service, SideEffect
from runtime.side_effects.attempt import irrevocable
from schemas.messages import Order
from schemas.topics import ORDERS
from tests.simulation.clock import PROCESS
from tests.simulation.schedule import CUSTOMERS

DEAD_UNTIL_S = 30.0


class ExternalSystem:
    """The external system: it takes time, fails now and then, and rejects some requests for good.

    A request that is cut off by a crash takes effect, or does not. In every other world it defers the requests of
    one customer until `DEAD_UNTIL_S`.
    """

    def __init__(self, random, dead):
        self.done = Counter()
        """How often each request was accepted, by key and state."""
        self.by = defaultdict(set)
        """The processes whose request was accepted, by key and state."""
        self.first = {}
        """Time of the first accepted request, by key."""
        self.dead = dead
        """The customer whose requests are deferred, if any."""
        self._random = random

    def refuses(self, key):
        return key.endswith("5")

    async def accept(self, key, order):
        await asyncio.sleep(0.2 * self._random.random() ** 4)
        if self._random.random() < 0.15:
            raise OSError("nobody is there")
        if self.refuses(key):
            raise SideEffectRejected("no")
        now = PROCESS.get().loop.now  # type: ignore[attr-defined]
        if order.customer_id == self.dead and now < DEAD_UNTIL_S:
            raise SideEffectDeferred("not now")
        with irrevocable():
            self.done[key, order.state] += 1
            self.by[key, order.state].add(PROCESS.get().name)  # type: ignore[attr-defined]
            self.first.setdefault(key, now)
            await asyncio.sleep(0.02 * self._random.random())


async def _take(key, order):
    await PROCESS.get().loop.external.accept(key, order)  # type: ignore[attr-defined]


TELLING = SideEffect("telling", Order, _take, destination=lambda order: str(order.customer_id), concurrency=2)


def _on_order(order, ctx):
    if order.state.decided:
        ctx.enqueue(TELLING, order.id, order)


def build(settings):
    return ServiceDefinition(Service("courier", (Input(ORDERS, _on_order),), (), side_effects=(TELLING,)))


def external_system(seed):
    dead = Random(f"{seed} dead").choice((None, None, None, *range(CUSTOMERS)))
    return ExternalSystem(Random(f"{seed} outside"), dead)
