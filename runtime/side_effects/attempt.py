"""Attempts at side effects, each in a task of its own; and retries of what must succeed in the end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from runtime.common.backoff import Backoff
from runtime.errors import SideEffectError, SideEffectRejected
from runtime.model.service import PendingSideEffect, SideEffect

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0

_CURRENT: "ContextVar[Attempt | None]" = ContextVar("attempt", default=None)


@contextmanager
def irrevocable() -> Iterator[None]:
    """For what an effect does: from here on nobody could tell, if it were cancelled, whether the other side has taken
    it. It is let go on then while its partition changes hands."""
    attempt = _CURRENT.get()
    if attempt is None:
        yield
        return
    attempt.irrevocable = True
    try:
        yield
    except BaseException:
        attempt.irrevocable = False  # it has failed, or was cancelled all the same
        raise


class Attempt:
    """Does an effect once, in a task of its own.

    Arguments:
        effect: what is done.
        key: under which it was asked for.
        pending: its row.
        ended: called when it is done, has failed, and when it was cancelled.
    """

    def __init__(
        self, effect: SideEffect[Any], key: str, pending: PendingSideEffect, ended: Callable[["Attempt"], None]
    ) -> None:
        self.effect = effect
        self.key = key
        self.pending = pending
        self.done = False
        """Whether the other side has taken it, or refused it for good."""
        self.refused: str | None = None
        """Why it was refused for good."""
        self.failure: Exception | None = None
        """Why it is to be tried again."""
        self.irrevocable = False
        """Whether it must not be cancelled now."""
        self.task = asyncio.create_task(self._run(), name=f"effect {effect.name}")
        self.task.add_done_callback(lambda _: ended(self))

    async def _run(self) -> None:
        _CURRENT.set(self)
        try:
            await self._perform()
        except Exception as error:  # whatever it is, it must be done: it is tried again
            self.failure = error
        else:
            self.done = True

    async def _perform(self) -> None:
        try:
            await self.effect.perform(self.key, self.effect.model.from_json(self.pending.payload))
        except SideEffectRejected as error:
            self.refused, self.failure = str(error), error


def summary(error: BaseException) -> str:
    """What went wrong, for logs and `/readyz`: nothing of what the message says, which may name somebody."""
    if isinstance(error, SideEffectError):
        return error.summary
    number = f" {error.errno}" if isinstance(error, OSError) and error.errno is not None else ""
    return f"{type(error).__name__}{number}"


async def until_done(name: str, what: Callable[[], Awaitable[None]]) -> None:
    """Tries again what failed, after longer and longer pauses, until it succeeds."""
    backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
    while True:
        try:
            await what()
        except Exception as error:  # whatever it is, it must be done: it is tried again
            log.warning("effect failed, trying again effect=%s seconds=%.1f error=%r", name, backoff.next_s, error)
            await backoff.pause()
        else:
            return
