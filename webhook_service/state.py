"""State of the webhook service: subscriptions, in each partition, and the latest attempts of each.

All subscriptions are one row, which lies under another key in each partition. That under `SUBSCRIPTIONS_KEY` is
changed by commands; the others are copies, so that each partition knows whom to deliver its events to.
"""

from datetime import datetime
from functools import cache
from itertools import count

from pydantic import Field

from runtime.common.partitioning import partition_of
from runtime.model.service import Table
from schemas.topics import DAY, WEEK, Topic
from schemas.webhooks import DeliveryAttempt
from schemas.wire import Message

SUBSCRIPTIONS_KEY = "subscriptions"

MAX_SUBSCRIPTIONS = 50
"""They are one row, and each may have its own concurrent deliveries."""
MAX_SECRETS = 5
"""Valid secrets of a subscription: headers are limited."""
MAX_ATTEMPTS = 200
"""Attempts that are kept of each subscription."""


class SecretVersion(Message):
    """A secret of a subscription, which derives from the key `key_id`. `until`: when it stops being valid."""

    version: int
    key_id: str
    until: datetime | None = None


class Subscription(Message):
    """A subscription. `secrets` has the newest first. `events` may have types that only a later version knows."""

    id: str
    url: str
    events: tuple[str, ...]
    description: str | None = None
    created_at: datetime
    secrets: tuple[SecretVersion, ...]

    def valid_secrets(self, now: datetime) -> tuple[SecretVersion, ...]:
        """Those that are valid at a time."""
        return tuple(secret for secret in self.secrets if secret.until is None or now < secret.until)


class Subscriptions(Message):
    """All subscriptions. `version` counts their changes; `key` is that of the row in its partition."""

    key: str = SUBSCRIPTIONS_KEY
    version: int = 0
    subscriptions: tuple[Subscription, ...] = ()

    def find(self, subscription_id: str) -> Subscription | None:
        """The subscription of an id."""
        return next((s for s in self.subscriptions if s.id == subscription_id), None)


class Delivery(Message):
    """An event on its way to a subscription: payload of the side effect.

    Arguments:
        subscription_id: the subscription.
        webhook_id: id of the event.
        type: of the event.
        body: as it is sent.
        partition_key: the key of the message that it comes from, such as the order id.
        sequence: deliveries of one sequence to a subscription are in order.
        enqueued_at: when it was enqueued, UTC.
    """

    subscription_id: str
    webhook_id: str
    type: str
    body: str
    partition_key: str
    sequence: str
    enqueued_at: datetime


class SubscriptionAttempt(Message):
    """Message of `ATTEMPTS_BY_SUBSCRIPTION`: an attempt to deliver to a subscription."""

    subscription_id: str
    attempt: DeliveryAttempt


class AttemptRow(Message):
    """An attempt of a subscription; or how many there have been, in the row of its bare id."""

    attempt: DeliveryAttempt | None = None
    total: int = Field(default=0, exclude_if=lambda total: total == 0)


class DeadLetterPositions(Message):
    """Up to where dead letters are published: the next offset by `TOPIC/PARTITION`, where there are any."""

    next: dict[str, int]


SUBSCRIPTIONS = Table("webhooks-subscriptions", Subscriptions)
ATTEMPTS = Table("webhooks-attempts", AttemptRow)
DEAD_LETTER_POSITIONS = Table("webhooks-dead-letter-positions", DeadLetterPositions)
"""One row, under `SUBSCRIPTIONS_KEY`."""

COPIES = Topic("webhooks-subscriptions-by-partition", Subscriptions, lambda s: s.key, "webhooks", WEEK, internal=True)
ATTEMPTS_BY_SUBSCRIPTION = Topic(
    "webhooks-attempts-by-webhook",
    SubscriptionAttempt,
    lambda a: a.subscription_id,
    "webhooks",
    DAY,
    internal=True,
)


@cache
def copy_keys(partitions: int) -> tuple[str, ...]:
    """The key of the row of all subscriptions in each partition: keys that murmur2 puts there.

    >>> from runtime.common.partitioning import partition_of
    >>> [partition_of(key.encode(), 4) for key in copy_keys(4)]
    [0, 1, 2, 3]
    >>> SUBSCRIPTIONS_KEY in copy_keys(4)
    True
    """
    found: dict[int, str] = {}
    for number in count():
        key = SUBSCRIPTIONS_KEY if number == 0 else f"{SUBSCRIPTIONS_KEY}-{number}"
        found.setdefault(partition_of(key.encode(), partitions), key)
        if len(found) == partitions:
            return tuple(found[partition] for partition in range(partitions))
    raise AssertionError  # count() does not end


def copy_key(key: str, partitions: int) -> str:
    """The key of the row of all subscriptions in the partition of a key."""
    return copy_keys(partitions)[partition_of(key.encode(), partitions)]


def attempt_key(subscription_id: str, number: int) -> str:
    """Key of an attempt: the number of rows of a subscription is bounded."""
    return f"{subscription_id}/{number % MAX_ATTEMPTS}"
