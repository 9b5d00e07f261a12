"""Fans events out to their subscribers, keeps copies of the subscriptions, and logs attempts. Pure."""

from runtime.model.service import Context
from runtime.state.serial_effects import SerialSideEffects
from schemas.messages import Order, ProductEvent
from schemas.webhooks import WebhookEvent
from webhook_service.events import ORDER_TYPES, order_event, product_event, webhook_id
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
        if kind is None or not (subscribers := self._subscribers(kind, order.id, ctx)):
            return  # before anything is made of it: most orders of most deployments have no subscriber
        event = order_event(kind, order, ctx.time)
        id_ = webhook_id(kind, str(order.attempt_number), order.id)
        self._enqueue(subscribers, id_, event, order.id, f"order/{order.id}", ctx)

    def on_product(self, change: ProductEvent, ctx: Context) -> None:
        """Publishes a change of a product."""
        event = product_event(change)
        id_ = webhook_id(event.type, str(change.version), change.code)
        self.publish(id_, event, change.code, f"product/{change.code}", ctx)

    def publish(self, event_id: str, event: WebhookEvent, partition_key: str, sequence: str, ctx: Context) -> None:
        """Enqueues an event for all who have subscribed to its type.

        Arguments:
            event_id: identifies repetitions of the event.
            event: the event.
            partition_key: key in the partition of the context.
            sequence: events of one sequence are delivered in order.
            ctx: the context.
        """
        if subscribers := self._subscribers(event.type, partition_key, ctx):
            self._enqueue(subscribers, event_id, event, partition_key, sequence, ctx)

    def _subscribers(self, kind: str, partition_key: str, ctx: Context) -> list[str]:
        """The ids of the subscriptions to a type, as the partition of a key knows them."""
        known = ctx.get(SUBSCRIPTIONS, copy_key(partition_key, self._partitions))
        return [s.id for s in known.subscriptions if kind in s.events] if known is not None else []

    def _enqueue(
        self,
        subscribers: list[str],
        event_id: str,
        event: WebhookEvent,
        partition_key: str,
        sequence: str,
        ctx: Context,
    ) -> None:
        body = event.to_json().decode()
        for subscription_id in subscribers:
            self.deliver(subscription_id, event_id, event.type, body, partition_key, sequence, ctx)

    def deliver(
        self,
        subscription_id: str,
        event_id: str,
        type_: str,
        body: str,
        partition_key: str,
        sequence: str,
        ctx: Context,
    ) -> None:
        """Enqueues a delivery."""
        ctx.count(FANNED_OUT)
        delivery = Delivery(
            subscription_id=subscription_id,
            webhook_id=event_id,
            type=type_,
            body=body,
            partition_key=partition_key,
            sequence=sequence,
            enqueued_at=ctx.now,
        )
        self._deliveries.enqueue(delivery, ctx)

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
