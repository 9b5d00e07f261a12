"""A service that delivers each decided order after a repartition, a timer and a side effect.

The marks of a replay must survive all of these.
"""

import asyncio
from datetime import timedelta

from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, PendingSideEffect, Service, SideEffect, Table, Timer
from schemas.messages import Order
from schemas.topics import ORDERS, repartition
from schemas.wire import Message

NAME = "messenger"
BY_CUSTOMER = repartition(NAME, ORDERS, "customer", lambda order: str(order.customer_id))
DELAY = timedelta(seconds=0.3)


class Delivery(Message):
    """A message about an order, with the number of the next one about it."""

    order: Order | None = None
    next: int = 0


DELIVERIES = Table(f"{NAME}-deliveries", Delivery)


async def _deliver(key, order):
    await asyncio.sleep(0.01)


DELIVERING = SideEffect("delivering", Order, _deliver)


def _on_order(order, ctx):
    if order.state.decided:
        ctx.send(BY_CUSTOMER, order)


def _on_repartitioned(order, ctx):
    """Each message has a timer of its own, so that a replay does not replace the timer of its original."""
    number = (ctx.get(DELIVERIES, order.id) or Delivery()).next
    ctx.put(DELIVERIES, order.id, Delivery(next=number + 1))
    ctx.put(DELIVERIES, f"{order.id}/{number}", Delivery(order=order))
    ctx.schedule(DUE, f"{order.id}/{number}", ctx.now + DELAY)


def _on_due(key, ctx):
    delivery = ctx.get(DELIVERIES, key)
    if delivery is not None:  # at least once it may have been deleted
        ctx.enqueue(DELIVERING, key, delivery.order)
        ctx.delete(DELIVERIES, key)


DUE = Timer("due", _on_due)


def build(settings):
    inputs = (Input(ORDERS, _on_order), Input(BY_CUSTOMER, _on_repartitioned))
    service = Service(NAME, inputs, (BY_CUSTOMER,), (DELIVERIES,), timers=(DUE,), side_effects=(DELIVERING,))
    return ServiceDefinition(service)


def payload_of(row):
    """The order of a pending side effect."""
    return Order.from_json(PendingSideEffect.from_json(row).payload)
