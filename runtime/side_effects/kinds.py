"""The side effects of one kind in a worker: scheduler, timer, and rate-limited log."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from runtime.common.clock import elapsed_s
from runtime.common.logs import LogRateLimiter
from runtime.metrics.side_effects import SideEffectStatus
from runtime.model.service import PendingSideEffect, Service, SideEffect
from runtime.side_effects.attempt import summary
from runtime.side_effects.scheduler import AttemptScheduler

log = logging.getLogger(__name__)


class SideEffectKind:
    """The side effects of one kind in a worker.

    Arguments:
        service: their service.
        effect: their declaration.
        longest_s: seconds, the longest pause between two attempts of one.
        timeout_s: seconds after which a failing one is dead-lettered.
    """

    def __init__(self, service: Service, effect: SideEffect[Any], longest_s: float, timeout_s: float) -> None:
        self.service = service
        self.effect = effect
        self.attempts = AttemptScheduler(
            f"{service.name} {effect.name}", effect.concurrency, longest_s, timeout_s, effect.per_destination
        )
        self._failures_logged = LogRateLimiter()
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0
        """When the timer fires: uvloop has no `when()` for a timer that is due within a millisecond."""

    @property
    def status(self) -> SideEffectStatus:
        """How many run and wait, since when, and the last error."""
        attempts, oldest_at = self.attempts, self.attempts.oldest_enqueued_at()
        oldest_s = 0.0 if oldest_at is None else max(0.0, elapsed_s() - oldest_at)
        names = self.service.name, self.effect.name
        counts = len(attempts.running), len(attempts)
        return SideEffectStatus(*names, *counts, oldest_s, attempts.last_error, attempts.open_circuits())

    def destination(self, pending: PendingSideEffect) -> str | None:
        """The destination of a side effect; `None` for a kind without destinations."""
        if self.effect.destination is None:
            return None
        try:
            return self.effect.destination(self.effect.model.from_json(pending.payload))
        except Exception:  # its attempt will fail with the same error
            return ""

    def set_timer(self, at: float | None, callback: Callable[[], None]) -> None:
        """Calls `callback` at a time of the event loop, or earlier if that is set already. `None`: not at all."""
        if self._timer is not None and at is not None and self._timer_at <= at:
            return
        self.cancel_timer()
        if at is not None:
            self._timer, self._timer_at = asyncio.get_running_loop().call_at(at, self._fire, callback), at

    def cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def log_failure(self, event: str, error: Exception) -> None:
        """Logs a failure, rate limited, without key and payload: both may hold personal data."""
        if (suppressed := self._failures_logged.permit(elapsed_s())) is not None:
            details = event, self.service.name, self.effect.name, summary(error), len(self.attempts), suppressed
            log.warning("%s service=%s effect=%s error=%s waiting=%d suppressed=%d", *details)

    def _fire(self, callback: Callable[[], None]) -> None:
        self._timer = None
        callback()
