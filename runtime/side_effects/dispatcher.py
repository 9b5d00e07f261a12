"""Performs side effects after the commit that enqueued them, until they are acknowledged.

A side effect is a row of its service's table, so it survives crashes and moves with its partition:

    enqueued ──► waiting ──► running ──► succeeded or rejected ──► acknowledging ──► row deleted
                    ▲           │                                       │
                    └── failed ─┘                     partition revoked: acknowledged once it comes back,
                                                      or performed again by the next owner

The acknowledgement is a command of the loop. A crash before it repeats the side effect: at least once, and its key lets
the other side deduplicate. Without a crash, running side effects are acknowledged before partitions are revoked.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol, cast

from pydantic import ValidationError

from runtime.common.clock import elapsed_s, utc_now
from runtime.common.logs import LogRateLimiter
from runtime.errors import Outage
from runtime.metrics.side_effects import METRICS, SideEffectMetrics, SideEffectStatus
from runtime.model.commands import PendingCommand
from runtime.model.service import Context, PendingSideEffect, Service, SideEffect
from runtime.model.topology import Topology
from runtime.side_effects.attempt import Attempt, summary, until_done
from runtime.side_effects.lanes import Row
from runtime.side_effects.scheduler import LONGEST_PAUSE_S, TIMEOUT_S, AttemptScheduler
from runtime.state.stores import Store

log = logging.getLogger(__name__)

SubmitCommand = Callable[[Service, int, Callable[[Context], None]], "PendingCommand[None]"]
"""Submits a command to the loop. Raises `KeyNotOwned` and `BrokerUnavailable`."""


class _DeadLetterContext(Context, Protocol):
    """The context of the loop, which can also dead-letter a side effect (`runtime.loop.overlay.ProcessorContext`)."""

    def dead_letter(self, key: str, pending: PendingSideEffect, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class TimedOut:
    """A side effect that timed out while it waited."""

    effect: SideEffect[Any]
    pending: PendingSideEffect
    refused: str | None


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
        self.attempts = AttemptScheduler(f"{service.name} {effect.name}", effect.concurrency, longest_s, timeout_s)
        self.warnings = LogRateLimiter()
        self.timer: asyncio.Handle | None = None
        self.timer_at = 0.0
        """When the timer fires: uvloop does not tell it for one that is due within a millisecond."""

    def destination(self, pending: PendingSideEffect) -> str | None:
        """The destination of a side effect; `None` for a kind without destinations."""
        if self.effect.destination is None:
            return None
        try:
            return self.effect.destination(self.effect.model.from_json(pending.payload))
        except Exception:  # its attempt will fail with the same error
            return ""


class SideEffects:
    """The side effects of the partitions that a worker owns.

    A row has one running side effect at most. One that fails makes room for others, and is retried after a pause
    (`runtime/side_effects/scheduler.py`).

    Arguments:
        topology: the services of the worker.
        decided: submits a command to the loop.
        clock: the time, UTC.
        timeout_s: seconds after which a failing one is dead-lettered.
        longest_s: seconds, the longest pause between two attempts of one.
        metrics: counts outcomes.
    """

    def __init__(
        self,
        topology: Topology,
        decided: SubmitCommand,
        *,
        clock: Callable[[], datetime] = utc_now,
        timeout_s: float = TIMEOUT_S,
        longest_s: float = LONGEST_PAUSE_S,
        metrics: SideEffectMetrics = METRICS,
    ) -> None:
        self._kinds = {
            (s.pending.name, e.name): SideEffectKind(s, e, longest_s, timeout_s)
            for s in topology.services
            for e in s.side_effects
        }
        self._services = {s.pending.name: s for s in topology.services if s.side_effects}
        self._decided = decided
        self._clock = clock
        self._timeout_s = timeout_s
        self._metrics = metrics
        self._rows: dict[Row, PendingSideEffect] = {}
        self._running: dict[Row, Attempt] = {}
        self._finished: dict[Row, Attempt | TimedOut] = {}
        """Succeeded or rejected here, and not known to be acknowledged yet."""
        self._acknowledging: dict[Row, asyncio.Task[None]] = {}
        self._on_hold: set[int] = set()
        self._paused = False

    def __len__(self) -> int:
        return len(self._rows)

    def standing(self) -> list[SideEffectStatus]:
        """The status of each kind, for metrics and `/readyz`."""
        now, found = elapsed_s(), []
        for kind in self._kinds.values():
            attempts, oldest = kind.attempts, kind.attempts.oldest_at()
            age = 0.0 if oldest is None else max(0.0, now - oldest)
            names = kind.service.name, kind.effect.name
            found.append(SideEffectStatus(*names, len(attempts.running), len(attempts), age, attempts.last_error))
        return found

    def rest(self) -> None:
        """Starts no more side effects, and cancels those that may be cancelled, before a rebalance."""
        self._paused = True
        for attempt in self._running.values():
            if not attempt.irrevocable:
                attempt.task.cancel()

    async def finish(self, timeout_s: float) -> None:
        """Starts no new side effects; waits up to `timeout_s` until running ones are acknowledged."""
        self.rest()
        until = elapsed_s() + timeout_s
        while under_way := [*(attempt.task for attempt in self._running.values()), *self._acknowledging.values()]:
            if (left_s := until - elapsed_s()) <= 0:
                return
            await asyncio.wait(under_way, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)

    def suspend(self) -> None:
        """Forgets what waits, as partitions are lost. Irrevocable side effects go on: the partitions may come back."""
        self._rows.clear()
        for kind in self._kinds.values():
            kind.attempts.clear()
        self._on_hold.clear()
        for row, task in self._acknowledging.items():
            task.cancel()
            self._free_place(row, self._finished[row])
        self._acknowledging.clear()
        for attempt in self._running.values():
            if not attempt.irrevocable:
                attempt.task.cancel()

    def keep(self, partitions: Collection[int]) -> None:
        """Cancels and drops side effects of all other partitions: another owner may have performed them since."""
        for row in [row for row in self._finished if row.partition not in partitions]:
            del self._finished[row]
        for row in [row for row in self._running if row.partition not in partitions]:
            attempt = self._running.pop(row)
            attempt.task.cancel()
            self._free_place(row, attempt)
        for kind in self._kinds.values():
            kind.attempts.forget([row for row in kind.attempts.failed_rows if row.partition not in partitions])

    def resume(self) -> None:
        """Starts side effects again, as they are loaded."""
        self._paused = False

    def hold(self, partitions: Iterable[int]) -> None:
        """Puts side effects of these partitions on hold: they could not be acknowledged yet."""
        self._on_hold.update(partitions)

    def release(self, partitions: Iterable[int]) -> None:
        """Lets side effects of these partitions start from now on."""
        released = self._on_hold.intersection(partitions)
        self._on_hold -= released
        for row in self._rows:
            if row.partition in released:
                self._schedule(row)
        for table in self._services:
            self._start_waiting(table)

    def load(self, table: str, partition: int, store: Store) -> None:
        """Adds the side effects of a restored store. Other tables are ignored."""
        if table in self._services:
            for key, raw in store.items():
                self._add(Row(partition, table, key.decode()), raw)
            for row in [row for row in self._finished if row[:2] == (partition, table) and row not in self._rows]:
                del self._finished[row]  # it was acknowledged: only the reply was lost
            for kind in self._kinds_of(table):
                failed = kind.attempts.failed_rows
                kind.attempts.forget([row for row in failed if row.partition == partition and row not in self._rows])
            self._start_waiting(table)

    def apply(self, table: str, partition: int, rows: Mapping[bytes, bytes | None]) -> None:
        """Adds and removes side effects as a committed batch did. Other tables are ignored."""
        if table in self._services:
            for key, raw in rows.items():
                row = Row(partition, table, key.decode())
                if raw is None:
                    self._forget(row)
                else:
                    self._add(row, raw)
            self._start_waiting(table)

    async def stop(self) -> None:
        """Cancels all side effects."""
        self._paused = True
        tasks = [*(attempt.task for attempt in self._running.values()), *self._acknowledging.values()]
        self.suspend()
        self.keep(())
        for kind in self._kinds.values():
            if kind.timer is not None:
                kind.timer.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _kinds_of(self, table: str) -> list[SideEffectKind]:
        return [kind for (name, _), kind in self._kinds.items() if name == table]

    def _add(self, row: Row, raw: bytes) -> None:
        pending = PendingSideEffect.from_json(raw)
        if self._rows.get(row) == pending:
            return
        self._forget(row)
        self._rows[row] = pending
        if (row.table, pending.effect) not in self._kinds:  # of another version, which may be deployed again
            service = self._services[row.table].name
            log.error("unknown side effect ignored effect=%s service=%s", pending.effect, service)
        self._schedule(row)

    def _forget(self, row: Row) -> None:
        before = self._rows.pop(row, None)
        kind = None if before is None else self._kinds.get((row.table, before.effect))
        if kind is not None:
            kind.attempts.remove(row)

    def _schedule(self, row: Row) -> None:
        pending = self._rows[row]
        kind = self._kinds.get((row.table, pending.effect))
        if kind is None or row in self._running or row in self._acknowledging or row.partition in self._on_hold:
            return
        now = elapsed_s()
        age_s = 0.0 if pending.since is None else (self._clock() - pending.since).total_seconds()
        kind.attempts.add(row, kind.destination(pending), now - age_s, now)

    def _start_waiting(self, table: str) -> None:
        for kind in self._kinds_of(table):
            self._start_kind(kind)

    def _start_kind(self, kind: SideEffectKind) -> None:
        """Starts as many side effects as allowed, and sets a timer for the next ones."""
        if self._paused:
            return
        now = elapsed_s()
        for row, reason in kind.attempts.over(now):
            self._acknowledge(row, TimedOut(kind.effect, self._rows[row], self._too_late(reason)))
        while (row_ := kind.attempts.begin(now)) is not None:
            self._start(row_, kind)
        at = kind.attempts.wake_at(now)
        if kind.timer is not None and at is not None and kind.timer_at <= at:
            return  # it fires early enough
        if kind.timer is not None:
            kind.timer.cancel()
        kind.timer = None
        if at is not None:
            kind.timer, kind.timer_at = asyncio.get_running_loop().call_at(at, self._on_timer, kind), at

    def _on_timer(self, kind: SideEffectKind) -> None:
        kind.timer = None
        self._start_kind(kind)

    def _too_late(self, reason: str) -> str:
        return f"not done within {self._timeout_s:g} s: {reason}"

    def _start(self, row: Row, kind: SideEffectKind) -> None:
        pending, done = self._rows[row], self._finished.pop(row, None)
        if done is not None and done.pending == pending:
            self._acknowledge(row, done)
        else:
            self._running[row] = Attempt(kind.effect, row.key, pending, partial(self._attempt_ended, row))

    def _attempt_ended(self, row: Row, attempt: Attempt) -> None:
        if self._running.get(row) is not attempt:
            return  # of an earlier ownership
        del self._running[row]
        attempts, here = self._kinds[row.table, attempt.effect.name].attempts, row.partition not in self._on_hold
        if attempt.done:
            attempts.succeeded(row, elapsed_s())
            if attempt.failure is not None:
                self._log_failure("side effect refused", row, attempt.effect, attempt.failure)
            if row in self._rows and here:
                self._acknowledge(row, attempt)
                return
            self._finished[row] = attempt
        elif attempt.failure is not None and self._failed(row, attempt, attempt.failure) and here:
            attempt.refused = self._too_late(str(attempt.failure) or summary(attempt.failure))
            self._acknowledge(row, attempt)
            return
        self._free_place(row, attempt)
        self._reschedule(row)

    def _failed(self, row: Row, attempt: Attempt, error: Exception) -> bool:
        """Records a failed attempt. Returns whether it was the last one."""
        kind = self._kinds[row.table, attempt.effect.name]
        outage_s = error.longest_pause_s if isinstance(error, Outage) else None
        over = kind.attempts.failed(row, summary(error), elapsed_s(), outage_s, str(error))
        self._metrics.failed(kind.service.name, kind.effect.name)
        self._log_failure("side effect failed", row, attempt.effect, error)
        wanted = self._rows.get(row)
        if wanted is not None and wanted != attempt.pending:
            kind.attempts.forget([row])  # the new payload has not failed yet
        return over and wanted == attempt.pending

    def _log_failure(self, what: str, row: Row, effect: SideEffect[Any], error: Exception) -> None:
        """Logs a failure, rate limited, without key and payload: both may hold personal data."""
        kind = self._kinds[row.table, effect.name]
        if (left_out := kind.warnings.permit(elapsed_s())) is not None:
            said = what, kind.service.name, effect.name, summary(error), len(kind.attempts), left_out
            log.warning("%s service=%s effect=%s error=%s waiting=%d not_logged=%d", *said)

    def _free_place(self, row: Row, attempt: Attempt | TimedOut) -> None:
        """Frees the place of an attempt."""
        self._kinds[row.table, attempt.effect.name].attempts.ended(row, elapsed_s())

    def _acknowledge(self, row: Row, attempt: Attempt | TimedOut) -> None:
        self._finished[row] = attempt
        committing = self._commit_acknowledgement(row, attempt)
        task = self._acknowledging[row] = asyncio.create_task(committing, name=f"acknowledge {row.table}")
        task.add_done_callback(partial(self._acknowledged, row))

    def _acknowledged(self, row: Row, task: "asyncio.Task[None]") -> None:
        if self._acknowledging.get(row) is task:
            del self._acknowledging[row]
            self._free_place(row, self._finished.pop(row))
            self._reschedule(row)

    def _reschedule(self, row: Row) -> None:
        """Queues a row again that failed or was replaced meanwhile, and starts others in its place."""
        if row in self._rows:
            self._schedule(row)
        self._start_waiting(row.table)

    async def _commit_acknowledgement(self, row: Row, attempt: Attempt | TimedOut) -> None:
        """Acknowledges a side effect by a command of the loop; retries until that is committed."""
        service, effect, pending = self._services[row.table], attempt.effect, attempt.pending
        replaced = False

        def end(ctx: Context) -> None:
            nonlocal replaced
            replaced = ctx.get(service.pending, row.key) != pending
            if replaced:
                return  # by a later one, which is performed as well
            ctx.delete(service.pending, row.key)
            if attempt.refused is None:
                if effect.on_done is not None:
                    effect.on_done(effect.model.from_json(pending.payload), ctx)
                return
            cast("_DeadLetterContext", ctx).dead_letter(row.key, pending, attempt.refused)
            if effect.on_rejected is not None and (payload := _readable(effect, pending)) is not None:
                effect.on_rejected(payload, attempt.refused, ctx)

        async def note() -> None:
            await self._decided(service, row.partition, end).answer

        await until_done(effect.name, note)
        if not replaced:
            self._metrics.ended(service.name, effect.name, dead_letter=attempt.refused is not None)


def _readable(effect: SideEffect[Any], pending: PendingSideEffect) -> Any:
    """The payload; `None` if another version of the service wrote it and it is unreadable."""
    try:
        return effect.model.from_json(pending.payload)
    except ValidationError:
        return None
