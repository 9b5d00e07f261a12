"""Webhook service: delivers events about orders and products to the URLs that have subscribed to them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from runtime.common.settings import Settings
from runtime.hosting import Host, Job, ServiceDefinition
from runtime.kafka.dead_letter_reader import DeadLetterReader
from runtime.model.service import Context, Input, Service, SideEffect, Start
from runtime.state.serial_effects import Place, SerialSideEffects
from schemas.topics import ORDERS, PRODUCTS
from webhook_service import http
from webhook_service.commands import SubscriptionCommands
from webhook_service.dead_letters import OWN_TOPICS, DeadLetterEvents
from webhook_service.effects import WebhookSender
from webhook_service.processors import FANNED_OUT, Fanout
from webhook_service.settings import WebhookSettings
from webhook_service.signatures import SecretKeys
from webhook_service.state import (
    ATTEMPTS,
    ATTEMPTS_BY_SUBSCRIPTION,
    COPIES,
    DEAD_LETTER_POSITIONS,
    MAX_SUBSCRIPTIONS,
    SUBSCRIPTIONS,
    Delivery,
)


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    own, partitions = settings.of(WebhookSettings), settings.partitions
    keys = SecretKeys(own.webhook_keys)
    sender = WebhookSender(own, keys, partitions)

    def delivery_effect(
        on_done: Callable[[Delivery, Context], None], on_rejected: Callable[[Delivery, str, Context], None]
    ) -> SideEffect[Delivery]:
        return SideEffect(
            "delivery",
            Delivery,
            sender.perform,
            on_done,
            on_rejected,
            destination=lambda delivery: delivery.subscription_id,
            # Enough for each subscription to have all of its own: none takes a slot from another.
            concurrency=MAX_SUBSCRIPTIONS * own.webhook_concurrency,
            per_destination=own.webhook_concurrency,
        )

    deliveries = SerialSideEffects(
        "webhooks",
        delivery_effect,
        _place,
        max_waiting=own.webhook_max_waiting,
        # What waits behind a delivery that failed for all its time is tried as well, unless another one did so, too.
        max_age=timedelta(seconds=2 * settings.side_effect_timeout_s),
    )
    fanout = Fanout(partitions, deliveries)
    commands = SubscriptionCommands(partitions, fanout, timedelta(seconds=own.webhook_secret_overlap_s))
    dead_letters = DeadLetterEvents(fanout, DeadLetterReader(settings, without=OWN_TOPICS))

    @asynccontextmanager
    async def lifespan(host: Host) -> AsyncIterator[None]:
        async with sender.lifespan(host), dead_letters.lifespan(host):
            yield

    return ServiceDefinition(
        Service(
            name="webhooks",
            inputs=(
                Input(ORDERS, fanout.on_order, start=Start.NOW),
                Input(PRODUCTS, fanout.on_product, start=Start.NOW),
                Input(COPIES, fanout.on_copy),
                Input(ATTEMPTS_BY_SUBSCRIPTION, fanout.on_attempt),
            ),
            outputs=(COPIES, ATTEMPTS_BY_SUBSCRIPTION),
            tables=(SUBSCRIPTIONS, ATTEMPTS, DEAD_LETTER_POSITIONS, *deliveries.tables),
            side_effects=(deliveries.effect,),
            timers=deliveries.timers,
            events=(FANNED_OUT,),
        ),
        endpoints=http.endpoints(own, keys, commands),
        events=http.OUTBOUND,
        lifespan=lifespan,
        jobs=(Job("events of dead letters", dead_letters.EVERY_S, dead_letters.run),),
    )


def _place(delivery: Delivery) -> Place:
    key = f"{delivery.webhook_id}/{delivery.subscription_id}"
    return Place(delivery.subscription_id, delivery.sequence, key, delivery.enqueued_at)
