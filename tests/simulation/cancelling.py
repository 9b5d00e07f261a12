"""Clients that cancel orders, and an operator who changes the required checks: their events, and how these happen."""

import asyncio
from functools import partial
from typing import Any

from orders_service.state import ORDERS_VIEW
from runtime.model.records import Write
from schemas.messages import BuiltInCheck, Cancellation, CheckSet, OrderState, RequiredChecks
from schemas.topics import CANCELLATIONS, REQUIRED_CHECKS
from tests.simulation.schedule import LAST_FAULT_S, PRODUCTS, Event

UNKNOWN = "CREDIT_CHECK"
"""A check that no service gives a verdict for. Orders wait for it until it is removed."""
LATE_S = LAST_FAULT_S + 18.0
"""When the last order is posted: long after all faults, so that every partition must have the last required checks."""
ATTEMPTS = 30


def changes(random, events):
    """Events that cancel some of the posted orders, and that change the required checks."""
    if random.random() < 0.6:
        for order in [event for event in events if event.what == "post"]:
            if random.random() < 0.4:
                at = order.at + random.choice((0.0, 0.1, 1.0, 6.0)) * random.random()
                what = random.choice(("cancel", "cancel", "ask to cancel"))
                yield from (Event(at, what, number=order.number),) * random.choice((1, 1, 2))
    if random.random() < 0.4:
        yield from _rules(random)


def _rules(random):
    """One to three changes; the last one requires no check that nobody runs. Then an order, after all faults."""
    count = random.choice((1, 1, 2, 3))
    for n, at in enumerate(sorted(random.uniform(0.5, 9) for _ in range(count))):
        checks = random.sample(tuple(BuiltInCheck), random.randint(1, 3))
        unknown = [UNKNOWN] * (n + 1 < count and random.random() < 0.5)
        # `seconds`: the pause of the writer between two partitions, because it crashes and is run again
        pause = random.choice((0.0, 0.0, 0.3, 3.0))
        yield Event(at, "require", name=",".join([*checks, *unknown]), seconds=pause)
    for number in (81, 82, 83, 84):
        yield Event(LATE_S, "post", number=number, product=random.choice(PRODUCTS), quantity=1, price=5)


class Changes:
    """The part of a world that cancels orders and changes the required checks. The world has the other attributes."""

    loop: Any
    clients_process: Any
    orders: Any
    settings: Any
    workers: Any
    network: Any
    trace: Any
    _until_answered: Any
    _write: Any
    _send: Any
    _now: Any
    _ask: Any

    def prepare(self):
        self.cancelled = set()
        """Ids whose DELETE was answered 200."""
        self.conflicts = []
        """Answers 409, as id and state."""
        self.required = []
        """The records written by the operator, in order."""
        self._operator = asyncio.Lock()

    def _cancel(self, event):
        if f"o{event.number}" in self.orders:
            self.clients_process.start(self._until_answered(self._delete(self.orders[f"o{event.number}"])))

    def _ask_to_cancel(self, event):
        asked = Cancellation(order_id=f"o{event.number}", reason="not paid")
        self.clients_process.start(self._until_answered(self._write(CANCELLATIONS, asked, None)))

    def _require(self, event):
        self.clients_process.start(self._until_answered(self._change_checks(event)))

    async def _change_checks(self, event):
        """Writes a record to every partition, as the command does. A writer that crashed is run again."""
        async with self._operator:
            sets = self.required[-1].sets if self.required else ()
            record = RequiredChecks(sets=(*sets, CheckSet(since=self._now(), checks=tuple(event.name.split(",")))))
            self.required.append(record)
            for partition in range(self.settings.partitions):
                write = Write(REQUIRED_CHECKS.name, partition, record.name.encode(), record.to_json())
                await self._send(write, None)
                await asyncio.sleep(event.seconds)
                if event.seconds and not partition:  # it crashed here, and is run again
                    await self._send(write, None)

    async def _delete(self, order):
        """Asks one worker after the other, like a client that gets a 503, a 404 or no answer."""
        for _ in range(ATTEMPTS):
            for worker in self.workers:
                if not worker.running or worker.live is None or ORDERS_VIEW.name not in worker.topology.tables:
                    continue
                reply = self.loop.create_future()
                decide = partial(aggregator_of(worker.topology).cancel, order.id, "changed my mind")
                self.loop.at(self.loop.now + self.network.delay(), None, self._ask, worker, order, reply, decide)
                await asyncio.wait({reply}, timeout=5.0)
                known = reply.result() if reply.done() else None
                if known is None or known.state is OrderState.CREATED:
                    continue
                if known.state is OrderState.CANCELLED:
                    self.cancelled.add(order.id)
                else:
                    self.conflicts.append((order.id, known.state))
                if self.trace:
                    self.trace("clients", f"{order.id} is {known.state}, says DELETE")
                return
            await asyncio.sleep(0.3)


def aggregator_of(topology):
    """The aggregator of a topology with the orders service."""
    orders = next(service for service in topology.services if service.name == "orders")
    return next(i.processor.__self__ for i in orders.inputs if i.topic is CANCELLATIONS)
