"""Publishes that dead letters were written, while anybody subscribes to it.

Dead letters have no service that consumes them, and a broken message cannot be an input. So a job reads their topics,
and a command publishes what it found: events and positions in one transaction.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from runtime.errors import KeyNotOwned
from runtime.hosting import Host
from runtime.kafka.dead_letter_reader import DeadLetter, DeadLetterReader, Positions
from runtime.model.service import Context
from schemas.webhooks import DeadLetterNotice, EventType
from webhook_service.events import Occurrence, dead_letter_event
from webhook_service.processors import Fanout
from webhook_service.state import (
    DEAD_LETTER_POSITIONS,
    SUBSCRIPTIONS,
    SUBSCRIPTIONS_KEY,
    DeadLetterPositions,
    Subscriptions,
)

OWN_TOPICS = "webhooks-"
"""Dead letters of the service itself raise no event: one that cannot be delivered would raise the next one."""
TYPE = EventType.DEAD_LETTER_WRITTEN


class DeadLetterEvents:
    """The job that publishes dead letters. The worker that owns the subscriptions does it.

    Arguments:
        fanout: publishes events.
        reader: of dead letters.
    """

    EVERY_S = 2.0
    """Seconds between two looks at the ends of the topics."""

    def __init__(self, fanout: Fanout, reader: DeadLetterReader) -> None:
        self._fanout = fanout
        self._reader = reader
        self._host: Host | None = None

    @asynccontextmanager
    async def lifespan(self, host: Host) -> AsyncIterator[None]:
        """Lets the job run for as long as the worker does."""
        self._host = host
        try:
            yield
        finally:
            self._host = None
            await self._reader.stop()

    async def run(self) -> None:
        """Publishes the dead letters that were written since the last time."""
        host = self._host
        if host is None or not host.owns(SUBSCRIPTIONS_KEY):
            return
        try:
            known = host.read(SUBSCRIPTIONS, SUBSCRIPTIONS_KEY) or Subscriptions()
            before = host.read(DEAD_LETTER_POSITIONS, SUBSCRIPTIONS_KEY)
            if not any(TYPE in subscription.events for subscription in known.subscriptions):
                if before is not None:  # whoever subscribes next gets what is written from then on
                    await host.submit(DEAD_LETTER_POSITIONS, SUBSCRIPTIONS_KEY, partial(self.publish, before, None, ()))
                return
            letters, after = await self._reader.read(before.next if before is not None else None)
            if before is None or after != before.next:
                publish = partial(self.publish, before, after, [_occurrence(letter) for letter in letters])
                await host.submit(DEAD_LETTER_POSITIONS, SUBSCRIPTIONS_KEY, publish)
        except KeyNotOwned:
            return  # revoked meanwhile: the next owner goes on from the positions that are committed

    def publish(
        self,
        before: DeadLetterPositions | None,
        after: Positions | None,
        occurrences: Sequence[Occurrence],
        ctx: Context,
    ) -> None:
        """Publishes dead letters, and moves the positions; unless another worker has moved them meanwhile."""
        if ctx.get(DEAD_LETTER_POSITIONS, SUBSCRIPTIONS_KEY) != before:
            return
        if after is None:
            ctx.delete(DEAD_LETTER_POSITIONS, SUBSCRIPTIONS_KEY)
            return
        ctx.put(DEAD_LETTER_POSITIONS, SUBSCRIPTIONS_KEY, DeadLetterPositions(next=dict(after)))
        for occurrence in occurrences:
            self._fanout.publish(occurrence, ctx)


def _occurrence(letter: DeadLetter) -> Occurrence:
    notice = DeadLetterNotice(
        topic=letter.topic, partition=letter.partition, offset=letter.offset, service=letter.service
    )
    return dead_letter_event(notice, letter.at)
