"""One attempt at a side effect, in a task of its own."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from runtime.errors import SideEffectError, SideEffectRejected
from runtime.model.service import PendingSideEffect, SideEffect
from runtime.model.traces import CURRENT
from runtime.tracing.spans import Span

_CURRENT: "ContextVar[Attempt | None]" = ContextVar("attempt", default=None)


@contextmanager
def irrevocable() -> Iterator[None]:
    """Protects the current attempt from being cancelled before a rebalance: the other side may already have accepted
    it. No effect outside of an attempt."""
    attempt = _CURRENT.get()
    if attempt is None:
        yield
        return
    attempt.irrevocable = True
    try:
        yield
    except BaseException:
        attempt.irrevocable = False  # it failed, or was cancelled all the same
        raise


class Attempt:
    """Performs a side effect once.

    Arguments:
        effect: its declaration.
        key: its key.
        pending: its row.
        span: the span of the attempt, if it is traced.
        on_end: called when the attempt succeeded, failed or was cancelled.
    """

    def __init__(
        self,
        effect: SideEffect[Any],
        key: str,
        pending: PendingSideEffect,
        on_end: Callable[["Attempt"], None],
        span: Span | None = None,
    ) -> None:
        self.effect = effect
        self.key = key
        self.pending = pending
        self.span = span
        self.done = False
        """Whether the other side accepted it, or rejected it permanently."""
        self.rejection: str | None = None
        """The reason if it was rejected permanently."""
        self.failure: Exception | None = None
        """The error of a failed or rejected attempt."""
        self.irrevocable = False
        """Whether it must not be cancelled now."""
        self.task = asyncio.create_task(self._run(), name=f"effect {effect.name}")
        self.task.add_done_callback(lambda _: on_end(self))

    async def _run(self) -> None:
        _CURRENT.set(self)
        if self.span is not None:
            CURRENT.set(self.span.context)
        try:
            await self._perform()
        except Exception as error:  # any error: the side effect is retried until it times out
            self.failure = error
        else:
            self.done = True

    async def _perform(self) -> None:
        try:
            await self.effect.perform(self.key, self.effect.model.from_json(self.pending.payload))
        except SideEffectRejected as error:
            self.rejection, self.failure = str(error), error


def summary(error: BaseException) -> str:
    """The error for logs and `/readyz`, without its text, which may hold personal data."""
    if isinstance(error, SideEffectError):
        return error.summary
    number = f" {error.errno}" if isinstance(error, OSError) and error.errno is not None else ""
    return f"{type(error).__name__}{number}"
