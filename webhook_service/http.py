"""`/v1/webhooks`: subscribe a URL to events, show and remove subscriptions, replace secrets, test, read the log."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from aiohttp import web
from yarl import URL

from runtime.common.clock import utc_now
from runtime.hosting import Answer, Endpoint, Host, OutboundEvent, Parameter, ResponseHeader
from runtime.http.answers import RETRY, HttpProblem, answer, existing, location
from runtime.http.inputs import CODE, Deadline, deadline_of, message_of
from runtime.http.networks import AddressPolicy, parse_address
from runtime.http.queries import wait_for_row
from runtime.http.routing import route_to_owner
from runtime.http.validation import invalid_input
from schemas.identifiers import new_event_id, time_of
from schemas.webhooks import EVENTS, Deliveries, NewWebhook, TestDelivery, Webhook, Webhooks, WebhookWithSecret
from webhook_service.commands import SubscriptionCommands, TooManySecrets, TooManySubscriptions, attempts_of
from webhook_service.events import webhook_id
from webhook_service.settings import WebhookSettings
from webhook_service.signatures import SecretKeys, to_text
from webhook_service.state import (
    ATTEMPTS,
    MAX_SECRETS,
    MAX_SUBSCRIPTIONS,
    SUBSCRIPTIONS,
    SUBSCRIPTIONS_KEY,
    SecretVersion,
    Subscription,
    Subscriptions,
    copy_key,
)

PATH = "/v1/webhooks"
_ID_PREFIX = "wh_"
_COPIED_S = 2.0
"""Seconds after its creation within which a subscription is copied to each partition."""
_ID = replace(CODE, name="id", description="Id of the subscription", title="No subscription can have this id")


_HEADERS = (
    Parameter("webhook-id", "header", {"type": "string"}, "Id of the event: the same whenever it is delivered again"),
    Parameter("webhook-timestamp", "header", {"type": "string"}, "When this attempt was signed, seconds since 1970"),
    Parameter(
        "webhook-signature",
        "header",
        {"type": "string"},
        "`v1,` and the HMAC-SHA256 of `ID.TIMESTAMP.BODY` in base64; one for each valid secret, with a space between",
    ),
)
OUTBOUND = tuple(OutboundEvent(str(name), body, "webhooks", _HEADERS) for name, body in EVENTS.items())
"""What is delivered, for the document of the API."""


def endpoints(own: WebhookSettings, keys: SecretKeys, commands: SubscriptionCommands) -> tuple[Endpoint, ...]:
    """Returns the endpoints."""

    async def add(host: Host, request: web.Request) -> web.StreamResponse:
        new = await message_of(request, NewWebhook)
        _check_url(new.url, own)
        first = SecretVersion(version=1, key_id=_current(keys))
        content = new.model_dump(include={"url", "events", "description"})
        subscription = Subscription(
            id=f"{_ID_PREFIX}{new_event_id()}", created_at=utc_now(), secrets=(first,), **content
        )

        async def subscribe() -> web.Response:
            try:
                added = await host.submit(SUBSCRIPTIONS, SUBSCRIPTIONS_KEY, partial(commands.add, subscription))
            except TooManySubscriptions:
                detail = f"There are {MAX_SUBSCRIPTIONS} webhooks, the most there can be. Remove one first."
                raise HttpProblem(409, detail) from None
            return answer(_with_secret(added, keys), 201, location(PATH, added.id))

        return await _route(host, request, subscribe)

    async def list_(host: Host, request: web.Request) -> web.StreamResponse:
        async def read() -> web.Response:
            return answer(Webhooks(webhooks=tuple(map(_shown, _known(host).subscriptions))))

        return await _route(host, request, read)

    async def get(host: Host, request: web.Request) -> web.StreamResponse:
        id_ = _ID.of(request)

        async def read() -> web.Response:
            return answer(_shown(existing(_known(host).find(id_), _unknown(id_))))

        return await _route(host, request, read)

    async def remove(host: Host, request: web.Request) -> web.StreamResponse:
        id_ = _ID.of(request)

        async def unsubscribe() -> web.Response:
            if not await host.submit(SUBSCRIPTIONS, SUBSCRIPTIONS_KEY, partial(commands.remove, id_)):
                raise HttpProblem(404, _unknown(id_))
            return web.Response(status=204)

        return await _route(host, request, unsubscribe)

    async def rotate(host: Host, request: web.Request) -> web.StreamResponse:
        id_, key_id = _ID.of(request), _current(keys)

        async def renew() -> web.Response:
            try:
                rotated = await host.submit(SUBSCRIPTIONS, SUBSCRIPTIONS_KEY, partial(commands.rotate, id_, key_id))
            except TooManySecrets:
                detail = f"{MAX_SECRETS} secrets of this webhook are valid, the most there can be. Wait until one ends."
                raise HttpProblem(409, detail) from None
            return answer(_with_secret(existing(rotated, _unknown(id_)), keys))

        return await _route(host, request, renew)

    async def test(host: Host, request: web.Request) -> web.StreamResponse:
        id_, event_id = _ID.of(request), webhook_id("test", new_event_id())

        async def send() -> web.Response:
            if not await host.submit(SUBSCRIPTIONS, SUBSCRIPTIONS_KEY, partial(commands.test, id_, event_id)):
                raise HttpProblem(404, _unknown(id_))
            return answer(TestDelivery(webhook_id=event_id), 202)

        return await _route(host, request, send)

    async def deliveries(host: Host, request: web.Request) -> web.StreamResponse:
        id_, deadline = _ID.of(request), deadline_of(request)

        async def read() -> web.Response:
            # The log lies in the partition of the id, where a new subscription is known a moment later.
            copy = copy_key(id_, host.settings.partitions)
            copied = Deadline(min(_copied_within_s(id_), deadline.remaining()))
            known = await wait_for_row(host, SUBSCRIPTIONS, copy, copied, lambda row: row.find(id_) is not None)
            found = known.find(id_) if known is not None else None
            if found is None and _copied_within_s(id_):  # 404 would deny what a client has just been told is there
                raise HttpProblem(503, f"Webhook {id_!r} is not known here yet. Repeat the request.", headers=RETRY)
            existing(found, _unknown(id_))
            return answer(Deliveries(attempts=await host.submit(ATTEMPTS, id_, attempts_of(id_))))

        return await route_to_owner(request, host, ATTEMPTS, id_, deadline, read)

    one = f"{PATH}/{{id}}"
    endpoint = partial(Endpoint, tag="webhooks", routed=True)
    with_secret = "The webhook with its new secret, which is not shown again"
    return (
        endpoint(
            "POST",
            PATH,
            add,
            name="createWebhook",
            summary="Subscribe a URL to kinds of events",
            description="Each request makes a subscription with a secret of its own. Events since then are delivered.",
            body=NewWebhook,
            answers={201: Answer(with_secret, WebhookWithSecret, (ResponseHeader("Location", "URL of the webhook"),))},
            problems=(409,),
        ),
        endpoint(
            "GET",
            PATH,
            list_,
            name="listWebhooks",
            summary="List the webhooks, without their secrets",
            answers={200: Answer("All webhooks, oldest first", Webhooks)},
        ),
        endpoint(
            "GET",
            one,
            get,
            name="getWebhook",
            summary="Get a webhook, without its secret",
            parameters=(_ID,),
            answers={200: Answer("The webhook", Webhook)},
        ),
        endpoint(
            "DELETE",
            one,
            remove,
            name="deleteWebhook",
            summary="Remove a webhook; what waits for it is dropped",
            parameters=(_ID,),
            answers={204: Answer("The webhook is removed", media_type=None)},
        ),
        endpoint(
            "POST",
            f"{one}/rotate",
            rotate,
            name="rotateWebhookSecret",
            summary="Replace the secret of a webhook; the earlier one stays valid for a while",
            description="Until `previousSecretUntil`, deliveries are signed with both.",
            parameters=(_ID,),
            answers={200: Answer(with_secret, WebhookWithSecret)},
            problems=(409,),
        ),
        endpoint(
            "POST",
            f"{one}/test",
            test,
            name="testWebhook",
            summary="Send a test event to a webhook",
            parameters=(_ID,),
            answers={202: Answer("The event will be delivered; see the log of deliveries", TestDelivery)},
        ),
        endpoint(
            "GET",
            f"{one}/deliveries",
            deliveries,
            name="listWebhookDeliveries",
            summary="List the latest attempts to deliver to a webhook, newest first",
            parameters=(_ID,),
            answers={200: Answer("The attempts", Deliveries)},
        ),
    )


async def _route(
    host: Host, request: web.Request, respond: Callable[[], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answers on the worker that owns the subscriptions."""
    return await route_to_owner(request, host, SUBSCRIPTIONS, SUBSCRIPTIONS_KEY, deadline_of(request), respond)


def _known(host: Host) -> Subscriptions:
    return host.read(SUBSCRIPTIONS, SUBSCRIPTIONS_KEY) or Subscriptions()


def _copied_within_s(id_: str) -> float:
    """Seconds until a subscription is known in each partition, going by the time in its id; not below 0."""
    created_at = time_of(id_.removeprefix(_ID_PREFIX))
    if created_at is None:
        return 0.0
    return min(max(0.0, (created_at - utc_now()).total_seconds() + _COPIED_S), _COPIED_S)  # clocks differ


def _unknown(id_: str) -> str:
    return f"There is no webhook {id_!r}."


def _current(keys: SecretKeys) -> str:
    """Id of the key of new secrets. Raises `HttpProblem` (503) without a key."""
    if keys.current is None:
        raise HttpProblem(503, "Webhooks are not configured: set WEBHOOK_KEYS, for example to `openssl rand -hex 32`.")
    return keys.current


def _check_url(text: str, own: WebhookSettings) -> None:
    """Raises `HttpProblem` (400) for a URL to which nothing would ever be delivered. Names are looked up later."""
    try:
        url = URL(text)
        _ = url.host, url.explicit_port  # some errors show here only
    except ValueError as error:
        raise invalid_input("url", f"must be a URL: {error}") from None
    if not url.host:
        raise invalid_input("url", "must have a host")
    if url.scheme == "http" and not (own.webhook_plain_http or own.webhook_allowed_networks):
        raise invalid_input("url", "must be https: the operator allows no plain http (WEBHOOK_PLAIN_HTTP)")
    public = url.scheme == "https" or own.webhook_plain_http
    policy = AddressPolicy(own.webhook_allowed_networks, public=public)
    if parse_address(url.host) is not None and not policy.permits(url.host):
        raise invalid_input("url", "must have a public address, or one in WEBHOOK_ALLOWED_NETWORKS")


def _shown(subscription: Subscription) -> Webhook:
    return Webhook(**_fields(subscription))


def _with_secret(subscription: Subscription, keys: SecretKeys) -> WebhookWithSecret:
    newest = subscription.secrets[0]
    secret = keys.secret(newest.key_id, subscription.id, newest.version)
    return WebhookWithSecret(**_fields(subscription), secret=to_text(secret))


def _fields(subscription: Subscription) -> dict[str, object]:
    earlier = [s.until for s in subscription.valid_secrets(utc_now())[1:] if s.until is not None]
    return {
        **subscription.model_dump(include={"id", "url", "events", "description", "created_at"}),
        "secret_version": subscription.secrets[0].version,
        "previous_secret_until": max(earlier, default=None),
    }
