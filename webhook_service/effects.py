"""The side effect: a signed POST to the URL of a subscription."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime

from runtime.common.clock import utc_now
from runtime.errors import BrokerUnavailable, SideEffectDeferred, SideEffectRejected
from runtime.hosting import Host
from runtime.http.outbound import OutboundClient, Outcome
from schemas.webhooks import DeliveryAttempt
from webhook_service.settings import WebhookSettings
from webhook_service.signatures import SecretKeys, UnknownKey, signatures
from webhook_service.state import (
    ATTEMPTS_BY_SUBSCRIPTION,
    SUBSCRIPTIONS,
    Delivery,
    Subscription,
    SubscriptionAttempt,
    copy_key,
)

GONE = 410
"""Status with which a receiver says that it wants no more events: no retry helps."""


class WebhookSender:
    """Delivers events to subscriptions, and logs each attempt.

    Arguments:
        own: the settings.
        keys: of the secrets.
        partitions: partitions of every topic.
        clock: the time, UTC.
    """

    def __init__(
        self, own: WebhookSettings, keys: SecretKeys, partitions: int, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._keys = keys
        self._partitions = partitions
        self._clock = clock
        self._client = OutboundClient(
            own.webhook_allowed_networks, plain=own.webhook_plain_http, timeout_s=own.webhook_timeout_s
        )
        self._host: Host | None = None

    @asynccontextmanager
    async def lifespan(self, host: Host) -> AsyncIterator[None]:
        """Opens the HTTP client for as long as the worker runs."""
        async with self._client.started():
            self._host = host
            yield

    async def perform(self, _: str, delivery: Delivery) -> None:
        """Returns once the receiver has accepted the event, or if its subscription has been removed.

        Raises `SideEffectRejected` if the receiver wants no more events, `SideEffectDeferred` for any other failure.
        """
        assert self._host is not None, "not started"
        known = self._host.read(SUBSCRIPTIONS, copy_key(delivery.partition_key, self._partitions))
        subscription = known.find(delivery.subscription_id) if known is not None else None
        if subscription is None:
            return
        at, body = self._clock(), delivery.body.encode()
        outcome = await self._client.post(subscription.url, body, self._headers(delivery, subscription, at, body))
        delivered = outcome.status is not None and 200 <= outcome.status < 300
        await self._log(delivery, at, outcome, delivered=delivered)
        if outcome.status == GONE:
            raise SideEffectRejected("the receiver answered 410 Gone", "HTTP 410")
        if not delivered:
            summary = f"HTTP {outcome.status}" if outcome.status is not None else outcome.error or "failed"
            raise SideEffectDeferred(f"the receiver did not accept it: {summary}", summary)

    def _headers(self, delivery: Delivery, subscription: Subscription, at: datetime, body: bytes) -> Mapping[str, str]:
        try:
            secrets = [
                self._keys.secret(secret.key_id, subscription.id, secret.version)
                for secret in subscription.valid_secrets(at)
            ]
        except UnknownKey as error:
            raise SideEffectDeferred(str(error), "unknown key") from None
        timestamp = int(at.timestamp())
        return {
            "Content-Type": "application/json",
            "User-Agent": "faust-orders-webhooks/1",
            "webhook-id": delivery.webhook_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(secrets, delivery.webhook_id, timestamp, body),
        }

    async def _log(self, delivery: Delivery, at: datetime, outcome: Outcome, *, delivered: bool) -> None:
        assert self._host is not None, "not started"
        attempt = DeliveryAttempt(
            at=at,
            webhook_id=delivery.webhook_id,
            type=delivery.type,
            delivered=delivered,
            status=outcome.status,
            error=outcome.error,
            duration_ms=round(outcome.seconds * 1000),
        )
        made = SubscriptionAttempt(subscription_id=delivery.subscription_id, attempt=attempt)
        with suppress(BrokerUnavailable):  # the log may miss an attempt: the delivery must not depend on it
            await self._host.produce(ATTEMPTS_BY_SUBSCRIPTION, made)
