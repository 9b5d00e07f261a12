"""One delivery: its request, what follows from each answer, and the schema that receivers are promised."""

import json
from datetime import UTC, datetime, timedelta

import jsonschema
import pytest
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook

from runtime.common.settings import Settings
from runtime.errors import BrokerUnavailable, SideEffectDeferred, SideEffectRejected
from runtime.http.openapi import document
from runtime.http.outbound import Outcome
from schemas.messages import OrderState, ProductEvent
from schemas.webhooks import EVENTS, DeadLetterNotice, EventType
from tests.samples import order
from webhook_service import app
from webhook_service.effects import WebhookSender
from webhook_service.events import ORDER_TYPES, dead_letter_event, order_event, product_event, trial_event
from webhook_service.settings import WebhookSettings
from webhook_service.signatures import SecretKeys, to_text
from webhook_service.state import (
    SUBSCRIPTIONS,
    Delivery,
    SecretVersion,
    Subscription,
    Subscriptions,
    copy_key,
)

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(autouse=True)
def _present():
    """Receivers refuse old signatures, and this module may have been imported long ago."""
    global NOW  # noqa: PLW0603
    NOW = datetime.now(UTC).replace(microsecond=0)


KEYS = SecretKeys([SecretStr("k" * 32)])
URL = "https://shop.example/hooks?token=in-the-url"


class Host:
    """A worker of a sender: it has one copy of the subscriptions, and a broker that may be away."""

    def __init__(self, *subscriptions, broker=True):
        self.subscriptions = Subscriptions(subscriptions=subscriptions)
        self.broker = broker
        self.logged = []
        self.requests = []

    def read(self, table, key):
        assert (table, key) == (SUBSCRIPTIONS, copy_key("o1", 4)), "the copy in the partition of the order"
        return self.subscriptions

    async def produce(self, topic, made):
        if not self.broker:
            raise BrokerUnavailable("away")
        self.logged.append((made.subscription_id, made.attempt))


class Client:
    """Answers each request with an outcome."""

    def __init__(self, outcome, requests):
        self.outcome = outcome
        self.requests = requests

    async def post(self, url, body, headers):
        self.requests.append((url, body, headers))
        return self.outcome


def subscription(**changes):
    secrets = (SecretVersion(version=1, key_id=KEYS.current),)
    fields = {"id": "w1", "url": URL, "events": ("order.failed",), "created_at": NOW, "secrets": secrets}
    return Subscription(**{**fields, **changes})


def delivery(subscription_id="w1"):
    occurrence = order_event(EventType.ORDER_FAILED, order("o1", state=OrderState.FAILED), NOW)
    return Delivery(
        subscription_id=subscription_id,
        webhook_id=occurrence.id,
        type=occurrence.event.type,
        body=occurrence.event.to_json().decode(),
        partition_key="o1",
        sequence=occurrence.sequence,
        enqueued_at=NOW,
    )


async def perform(outcome, host, one=None):
    sender = WebhookSender(WebhookSettings(), KEYS, 4, clock=lambda: NOW)
    sender._host, sender._client = host, Client(outcome, host.requests)
    await sender.perform("key", one or delivery())


@pytest.mark.parametrize("status", [200, 202, 204, 299])
async def test_any_2xx_is_accepted_and_logged(status):
    host = Host(subscription())
    await perform(Outcome(status, 0.0123), host)
    ((url, body, headers),) = host.requests
    assert url == URL
    Webhook(to_text(KEYS.secret(KEYS.current, "w1", 1))).verify(body, dict(headers))
    ((id_, attempt),) = host.logged
    assert (id_, attempt.status, attempt.delivered, attempt.duration_ms, attempt.at) == ("w1", status, True, 12, NOW)
    assert attempt.webhook_id == headers["webhook-id"]


@pytest.mark.parametrize(
    ("outcome", "error", "summary"),
    [
        (Outcome(410, 0.1), SideEffectRejected, "HTTP 410"),
        (Outcome(400, 0.1), SideEffectDeferred, "HTTP 400"),
        (Outcome(302, 0.1), SideEffectDeferred, "HTTP 302"),
        (Outcome(500, 0.1), SideEffectDeferred, "HTTP 500"),
        (Outcome(None, 0.1, "timeout"), SideEffectDeferred, "timeout"),
    ],
)
async def test_anything_else_is_tried_again_but_for_410(outcome, error, summary):
    host = Host(subscription())
    with pytest.raises(error) as failed:
        await perform(outcome, host)
    assert failed.value.summary == summary
    assert "shop.example" not in str(failed.value), "a URL may have credentials in its query"
    ((_, attempt),) = host.logged
    assert (attempt.delivered, attempt.status, attempt.error) == (False, outcome.status, outcome.error)


async def test_a_removed_subscription_gets_nothing_and_holds_nothing_up():
    host = Host(subscription(id="another"))
    await perform(Outcome(204, 0.1), host)
    assert host.requests == host.logged == []


async def test_a_delivery_does_not_depend_on_its_log():
    host = Host(subscription(), broker=False)
    await perform(Outcome(204, 0.1), host)
    assert len(host.requests) == 1


async def test_a_secret_that_has_ended_signs_no_more():
    def secrets(until):
        return (
            SecretVersion(version=2, key_id=KEYS.current),
            SecretVersion(version=1, key_id=KEYS.current, until=until),
        )

    for until, signatures in ((NOW + timedelta(seconds=1), 2), (NOW, 1)):
        host = Host(subscription(secrets=secrets(until)))
        await perform(Outcome(204, 0.1), host)
        ((_, _, headers),) = host.requests
        assert len(headers["webhook-signature"].split()) == signatures


async def test_without_the_key_of_a_secret_deliveries_wait():
    host = Host(subscription(secrets=(SecretVersion(version=1, key_id="gone"),)))
    with pytest.raises(SideEffectDeferred, match="the key gone is not in WEBHOOK_KEYS"):
        await perform(Outcome(204, 0.1), host)
    assert host.requests == []


def occurrences():
    for state, kind in ORDER_TYPES.items():
        yield order_event(kind, order("o1", state=state, reasons=("FRAUD_CHECK: too much",)), NOW)
    change = {"event_id": "e", "kind": "UPDATED", "code": "mug", "name": "Mug", "price": 12, "version": 2, "at": NOW}
    yield product_event(ProductEvent(**change))
    yield dead_letter_event(DeadLetterNotice(topic="orders.dead-letters", partition=1, offset=2, service="fraud"), NOW)
    yield trial_event("evt_1", NOW)


def test_each_event_is_as_the_openapi_document_says():
    described = document([app.build(Settings())])
    assert list(described["webhooks"]) == [str(type_) for type_ in EVENTS]
    seen = set()
    for occurrence in occurrences():
        body = described["webhooks"][occurrence.event.type]["post"]["requestBody"]["content"]["application/json"]
        schema = {**body["schema"], "components": described["components"]}
        jsonschema.Draft202012Validator(schema).validate(json.loads(occurrence.event.to_json()))
        seen.add(occurrence.event.type)
    assert seen == {*EVENTS}
