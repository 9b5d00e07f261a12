"""Commands of the HTTP handlers: they change the subscriptions, send test events and read the log. Pure.

Those that change the subscriptions run in the partition of `SUBSCRIPTIONS_KEY`, one after the other, and send a copy to
each other partition in the same transaction.
"""

from collections.abc import Callable
from datetime import timedelta

from runtime.model.service import Context
from schemas.webhooks import DeliveryAttempt
from webhook_service.events import trial_event
from webhook_service.processors import Fanout
from webhook_service.state import (
    ATTEMPTS,
    COPIES,
    MAX_ATTEMPTS,
    MAX_SECRETS,
    MAX_SUBSCRIPTIONS,
    SUBSCRIPTIONS,
    SUBSCRIPTIONS_KEY,
    SecretVersion,
    Subscription,
    Subscriptions,
    attempt_key,
    copy_keys,
)


class TooManySubscriptions(Exception):
    """There are as many subscriptions as there may be."""


class TooManySecrets(Exception):
    """As many secrets of the subscription are valid as may be."""


class SubscriptionCommands:
    """Changes of the subscriptions.

    Arguments:
        partitions: partitions of every topic.
        fanout: enqueues deliveries.
        overlap: how long a secret is valid after it was replaced.
    """

    def __init__(self, partitions: int, fanout: Fanout, overlap: timedelta) -> None:
        self._partitions = partitions
        self._fanout = fanout
        self._overlap = overlap

    def add(self, new: Subscription, ctx: Context) -> Subscription:
        """Adds a subscription. Raises `TooManySubscriptions`."""
        known = _known(ctx)
        if (found := known.find(new.id)) is not None:
            return found  # the command is repeated
        if len(known.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise TooManySubscriptions
        self._store(known, (*known.subscriptions, new), ctx)
        return new

    def remove(self, subscription_id: str, ctx: Context) -> bool:
        """Removes a subscription. What waits for it is dropped. Returns whether there was one."""
        known = _known(ctx)
        if known.find(subscription_id) is None:
            return False
        self._store(known, tuple(s for s in known.subscriptions if s.id != subscription_id), ctx)
        return True

    def rotate(self, subscription_id: str, key_id: str, ctx: Context) -> Subscription | None:
        """Gives a subscription a new secret, and lets the others end. `None` if there is no such subscription.

        Raises `TooManySecrets`.
        """
        known = _known(ctx)
        found = known.find(subscription_id)
        if found is None:
            return None
        until = ctx.now + self._overlap
        earlier = [s.model_copy(update={"until": s.until or until}) for s in found.valid_secrets(ctx.now)]
        earlier = [s for s in earlier if s.until is not None and s.until > ctx.now]
        if len(earlier) >= MAX_SECRETS:
            raise TooManySecrets
        newest = SecretVersion(version=found.secrets[0].version + 1, key_id=key_id)
        rotated = found.model_copy(update={"secrets": (newest, *earlier)})
        self._store(known, tuple(rotated if s.id == found.id else s for s in known.subscriptions), ctx)
        return rotated

    def test(self, subscription_id: str, webhook_id: str, ctx: Context) -> bool:
        """Enqueues a test event. Returns whether there is such a subscription."""
        if _known(ctx).find(subscription_id) is None:
            return False
        self._fanout.deliver(subscription_id, trial_event(webhook_id, ctx.now), ctx)
        return True

    def _store(self, known: Subscriptions, subscriptions: tuple[Subscription, ...], ctx: Context) -> None:
        changed = Subscriptions(version=known.version + 1, subscriptions=subscriptions)
        ctx.put(SUBSCRIPTIONS, SUBSCRIPTIONS_KEY, changed)
        self._fanout.forget_removed(known, changed, ctx)
        for key in copy_keys(self._partitions):
            if key != SUBSCRIPTIONS_KEY:
                ctx.send(COPIES, changed.model_copy(update={"key": key}))


def attempts_of(subscription_id: str) -> Callable[[Context], tuple[DeliveryAttempt, ...]]:
    """The command that reads the attempts of a subscription, newest first. It runs in the partition of the id."""

    def read(ctx: Context) -> tuple[DeliveryAttempt, ...]:
        head = ctx.get(ATTEMPTS, subscription_id)
        total = head.total if head is not None else 0
        numbers = range(total - 1, max(total - MAX_ATTEMPTS, 0) - 1, -1)
        rows = (ctx.get(ATTEMPTS, attempt_key(subscription_id, number)) for number in numbers)
        return tuple(row.attempt for row in rows if row is not None and row.attempt is not None)

    return read


def _known(ctx: Context) -> Subscriptions:
    return ctx.get(SUBSCRIPTIONS, SUBSCRIPTIONS_KEY) or Subscriptions()
