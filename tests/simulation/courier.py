"""A service with an effect: of each order that is decided it tells somebody outside Kafka, who is not always there."""

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


class Outside:
    """What is outside Kafka: it takes time, fails now and then, and refuses some for good.

    What was begun takes effect although its process crashes meanwhile, or not. In every other world it puts off all
    that is for one customer, until `DEAD_UNTIL_S`.
    """

    def __init__(self, random, dead):
        self.done = Counter()
        """How often each key was taken, by key and state."""
        self.by = defaultdict(set)
        """By key and state: the processes that had it taken."""
        self.first = {}
        """When each key was taken first."""
        self.dead = dead
        """The customer for whom nothing is taken; `None` if there is none."""
        self._random = random

    def refuses(self, key):
        return key.endswith("5")

    async def take(self, key, order):
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
    await PROCESS.get().loop.outside.take(key, order)  # type: ignore[attr-defined]


TELLING = SideEffect("telling", Order, _take, destination=lambda order: str(order.customer_id), concurrency=2)


def _on_order(order, ctx):
    if order.state.decided:
        ctx.enqueue(TELLING, order.id, order)


def build(settings):
    return ServiceDefinition(Service("courier", (Input(ORDERS, _on_order),), (), side_effects=(TELLING,)))


def outside(seed):
    dead = Random(f"{seed} dead").choice((None, None, None, *range(CUSTOMERS)))
    return Outside(Random(f"{seed} outside"), dead)
