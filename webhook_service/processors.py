"""Fans events out to their subscribers, keeps copies of the subscriptions, and logs attempts. Pure."""

from runtime.model.service import Context
from runtime.state.serial_effects import SerialSideEffects
from schemas.messages import Order, ProductEvent
from webhook_service.events import ORDER_TYPES, Occurrence, order_event, product_event
from webhook_service.state import (
    ATTEMPTS,
    MAX_ATTEMPTS,
    SUBSCRIPTIONS,
    AttemptRow,
    Delivery,
    SubscriptionAttempt,
    Subscriptions,
    attempt_key,
    copy_key,
)

FANNED_OUT = "delivery enqueued"
"""Counted event: an event that a subscription will get."""


class Fanout:
    """Enqueues a delivery for each subscription to an event.

    Arguments:
        partitions: partitions of every topic.
        deliveries: the side effect that delivers.
    """

    def __init__(self, partitions: int, deliveries: SerialSideEffects[Delivery]) -> None:
        self._partitions = partitions
        self._deliveries = deliveries

    def on_order(self, order: Order, ctx: Context) -> None:
        """Publishes that an order was decided, shipped or cancelled."""
        kind = ORDER_TYPES.get(order.state)
        if kind is not None and self._subscribers(
            kind, order.id, ctx
        ):  # most orders have none: nothing is made of them
            self.publish(order_event(kind, order, ctx.time), ctx)

    def on_product(self, change: ProductEvent, ctx: Context) -> None:
        """Publishes a change of a product."""
        self.publish(product_event(change), ctx)

    def publish(self, occurrence: Occurrence, ctx: Context) -> None:
        """Enqueues an event for all who have subscribed to its type."""
        for subscription_id in self._subscribers(occurrence.event.type, occurrence.partition_key, ctx):
            self.deliver(subscription_id, occurrence, ctx)

    def deliver(self, subscription_id: str, occurrence: Occurrence, ctx: Context) -> None:
        """Enqueues an event for a subscription."""
        ctx.count(FANNED_OUT)
        delivery = Delivery(
            subscription_id=subscription_id,
            webhook_id=occurrence.id,
            type=occurrence.event.type,
            body=occurrence.event.to_json().decode(),
            partition_key=occurrence.partition_key,
            sequence=occurrence.sequence,
            enqueued_at=ctx.now,
        )
        self._deliveries.enqueue(delivery, ctx)

    def _subscribers(self, kind: str, partition_key: str, ctx: Context) -> list[str]:
        """The ids of the subscriptions to a type, as the partition of a key knows them."""
        known = ctx.get(SUBSCRIPTIONS, copy_key(partition_key, self._partitions))
        return [s.id for s in known.subscriptions if kind in s.events] if known is not None else []

    def on_copy(self, copy: Subscriptions, ctx: Context) -> None:
        """Stores a copy of the subscriptions, and deletes the attempts of those that are gone."""
        known = ctx.get(SUBSCRIPTIONS, copy.key)
        if known is not None and copy.version <= known.version:
            return
        ctx.put(SUBSCRIPTIONS, copy.key, copy)
        self.forget_removed(known, copy, ctx)

    def forget_removed(self, before: Subscriptions | None, after: Subscriptions, ctx: Context) -> None:
        """Deletes the attempts of removed subscriptions whose log is in the partition of the context."""
        for subscription in before.subscriptions if before is not None else ():
            here = copy_key(subscription.id, self._partitions) == after.key
            head = ctx.get(ATTEMPTS, subscription.id) if here and after.find(subscription.id) is None else None
            if head is not None:
                for number in range(min(head.total, MAX_ATTEMPTS)):
                    ctx.delete(ATTEMPTS, attempt_key(subscription.id, number))
                ctx.delete(ATTEMPTS, subscription.id)

    def on_attempt(self, made: SubscriptionAttempt, ctx: Context) -> None:
        """Adds an attempt to the log of its subscription. The oldest one goes."""
        known = ctx.get(SUBSCRIPTIONS, copy_key(made.subscription_id, self._partitions))
        if known is None or known.find(made.subscription_id) is None:
            return
        head = ctx.get(ATTEMPTS, made.subscription_id) or AttemptRow()
        ctx.put(ATTEMPTS, attempt_key(made.subscription_id, head.total), AttemptRow(attempt=made.attempt))
        ctx.put(ATTEMPTS, made.subscription_id, AttemptRow(total=head.total + 1))
