"""Acknowledgement of side effects: a command of the loop deletes the row, or dead-letters it."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from runtime.common.backoff import Backoff, retry
from runtime.model.commands import PendingCommand
from runtime.model.context import DeadLetteringContext
from runtime.model.service import Context, PendingSideEffect, Service, SideEffect
from runtime.side_effects.attempt import Attempt
from runtime.side_effects.lanes import RowId

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
"""Seconds, the shortest pause between two attempts to acknowledge: a rebalance takes about as long."""
LONGEST_PAUSE_S = 60.0
"""Seconds, the longest pause: the broker may be unavailable for hours."""

SubmitCommand = Callable[[Service, int, Callable[[Context], None]], "PendingCommand[None]"]
"""Submits a command to the loop. Raises `KeyNotOwned` and `BrokerUnavailable`."""


@dataclass(frozen=True, slots=True)
class TimedOut:
    """A side effect that timed out while it waited."""

    effect: SideEffect[Any]
    pending: PendingSideEffect
    rejection: str | None


async def acknowledge(submit: SubmitCommand, service: Service, row: RowId, outcome: Attempt | TimedOut) -> bool:
    """Returns when the outcome of a side effect is committed, after any number of retries.

    Returns False if a later side effect has replaced the row: that one is performed as well.
    """
    effect, pending = outcome.effect, outcome.pending
    replaced = False

    def acknowledge_row(ctx: Context) -> None:
        nonlocal replaced
        replaced = ctx.get(service.pending, row.key) != pending
        if replaced:
            return
        ctx.delete(service.pending, row.key)
        if outcome.rejection is None:
            if effect.on_done is not None:
                effect.on_done(effect.model.from_json(pending.payload), ctx)
            return
        cast("DeadLetteringContext", ctx).dead_letter(row.key, pending, outcome.rejection)
        if effect.on_rejected is not None and (payload := _readable(effect, pending)) is not None:
            effect.on_rejected(payload, outcome.rejection, ctx)

    async def commit() -> None:
        await submit(service, row.partition, acknowledge_row).answer

    await retry_until_success(effect.name, commit)
    return not replaced


def _readable(effect: SideEffect[Any], pending: PendingSideEffect) -> Any:
    """The payload; `None` if another version of the service wrote it and it is unreadable."""
    try:
        return effect.model.from_json(pending.payload)
    except ValidationError:
        return None


async def retry_until_success(name: str, operation: Callable[[], Awaitable[None]]) -> None:
    """Repeats an operation until it succeeds, with growing pauses."""
    backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)

    def report(error: Exception) -> None:
        pause_s = backoff.next_s
        log.warning("side effect not acknowledged, retrying effect=%s pause_s=%.1f error=%r", name, pause_s, error)

    # Any error is retried: without the acknowledgement a restart would repeat the side effect.
    await retry(operation, backoff, report=report)
