"""Effects: what a service does outside Kafka. Decided like anything, done after the commit, repeated until done.

What is to be done is a row of the service's table of effects, so it survives crashes and moves with its partition. When
it is done, refused for good, or its time is over, that is decided by the loop like a call, and the row goes. A crash in
between has it done again: at least once, and its key is what lets the other side tell. Where partitions change hands
without one, it is noted before they go; and if they come back to where it was done, it is noted then.
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
"""Puts a call to the loop. Raises `KeyNotOwned` and `BrokerUnavailable`."""


class _DeadLetterContext(Context, Protocol):
    """The context of the loop, which can also dead-letter a side effect (`runtime.loop.overlay.ProcessorContext`)."""

    def dead_letter(self, key: str, pending: PendingSideEffect, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class TimedOut:
    """An effect whose time is over while it waited."""

    effect: SideEffect[Any]
    pending: PendingSideEffect
    refused: str | None


class SideEffectKind:
    """The effects of one kind that a worker has to do.

    Arguments:
        service: whose they are.
        effect: what is done.
        longest_s: seconds, the longest pause between two attempts of one.
        timeout_s: seconds after which one that fails is given up.
    """

    def __init__(self, service: Service, effect: SideEffect[Any], longest_s: float, timeout_s: float) -> None:
        self.service = service
        self.effect = effect
        self.attempts = AttemptScheduler(f"{service.name} {effect.name}", effect.concurrency, longest_s, timeout_s)
        self.warnings = LogRateLimiter()
        self.timer: asyncio.Handle | None = None
        self.timer_at = 0.0
        """When the timer fires. uvloop's handle of a timer that is due within a millisecond does not know it."""

    def destination(self, pending: PendingSideEffect) -> str | None:
        """What may fail by itself; `None` for a kind that has nothing of the sort."""
        if self.effect.destination is None:
            return None
        try:
            return self.effect.destination(self.effect.model.from_json(pending.payload))
        except Exception:  # its attempt will tell
            return ""


class SideEffects:
    """The effects of the partitions a worker owns: those that wait, and those that are being done.

    One of a row at a time. One that fails gives its place to others, and is tried again after a pause
    (`runtime/side_effects/scheduler.py`).

    Arguments:
        plan: the worker's services.
        decided: puts a call to the loop.
        clock: the time, UTC.
        timeout_s: seconds after which one that fails is a dead letter.
        longest_s: seconds, the longest pause between two attempts of one.
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
        self._doing: dict[Row, Attempt] = {}
        self._done: dict[Row, Attempt | TimedOut] = {}
        """What was done here, and is not known to be noted yet."""
        self._noting: dict[Row, asyncio.Task[None]] = {}
        self._on_hold: set[int] = set()
        self._resting = False

    def __len__(self) -> int:
        return len(self._rows)

    def standing(self) -> list[SideEffectStatus]:
        """How each kind stands, for metrics and `/readyz`."""
        now, found = elapsed_s(), []
        for kind in self._kinds.values():
            attempts, oldest = kind.attempts, kind.attempts.oldest_at()
            age = 0.0 if oldest is None else max(0.0, now - oldest)
            names = kind.service.name, kind.effect.name
            found.append(SideEffectStatus(*names, len(attempts.running), len(attempts), age, attempts.last_error))
        return found

    def rest(self) -> None:
        """Begins no more, and lets go of what can be begun anew: partitions are about to change hands."""
        self._resting = True
        for attempt in self._doing.values():
            if not attempt.irrevocable:
                attempt.task.cancel()

    async def finish(self, patience_s: float) -> None:
        """Rests, and returns when it is noted of all that is being done that it is, or after so many seconds."""
        self.rest()
        until = elapsed_s() + patience_s
        while under_way := [*(attempt.task for attempt in self._doing.values()), *self._noting.values()]:
            if (left_s := until - elapsed_s()) <= 0:
                return
            await asyncio.wait(under_way, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)

    def suspend(self) -> None:
        """Forgets what is to be done, for partitions are lost; they may come back, so what is irrevocable goes on."""
        self._rows.clear()
        for kind in self._kinds.values():
            kind.attempts.clear()
        self._on_hold.clear()
        for row, task in self._noting.items():
            task.cancel()
            self._end(row, self._done[row])
        self._noting.clear()
        for attempt in self._doing.values():
            if not attempt.irrevocable:
                attempt.task.cancel()

    def keep(self, partitions: Collection[int]) -> None:
        """Stops and forgets what is not of these partitions, which nobody else has owned meanwhile: who owned the
        others may have done it again, and what came after it."""
        for row in [row for row in self._done if row.partition not in partitions]:
            del self._done[row]
        for row in [row for row in self._doing if row.partition not in partitions]:
            attempt = self._doing.pop(row)
            attempt.task.cancel()
            self._end(row, attempt)
        for kind in self._kinds.values():
            kind.attempts.forget([row for row in kind.attempts.failed_rows if row.partition not in partitions])

    def resume(self) -> None:
        """Begins again, with what is loaded from now on."""
        self._resting = False

    def hold(self, partitions: Iterable[int]) -> None:
        """Keeps effects of these partitions back: that they were done could not be decided yet."""
        self._on_hold.update(partitions)

    def release(self, partitions: Iterable[int]) -> None:
        """Lets effects of these partitions be done from now on."""
        released = self._on_hold.intersection(partitions)
        self._on_hold -= released
        for row in self._rows:
            if row.partition in released:
                self._queue(row)
        for table in self._services:
            self._fill(table)

    def load(self, table: str, partition: int, store: Store) -> None:
        """Adds what a store holds, when its partition is taken over. Other tables are passed over."""
        if table in self._services:
            for key, raw in store.items():
                self._want(Row(partition, table, key.decode()), raw)
            for row in [row for row in self._done if row[:2] == (partition, table) and row not in self._rows]:
                del self._done[row]  # it was noted: only the answer had not come
            for kind in self._kinds_of(table):
                failed = kind.attempts.failed_rows
                kind.attempts.forget([row for row in failed if row.partition == partition and row not in self._rows])
            self._fill(table)

    def apply(self, table: str, partition: int, rows: Mapping[bytes, bytes | None]) -> None:
        """Notes what a committed batch decided. Other tables are passed over."""
        if table in self._services:
            for key, raw in rows.items():
                row = Row(partition, table, key.decode())
                if raw is None:
                    self._forget(row)
                else:
                    self._want(row, raw)
            self._fill(table)

    async def stop(self) -> None:
        """Stops what is being done."""
        self._resting = True
        tasks = [*(attempt.task for attempt in self._doing.values()), *self._noting.values()]
        self.suspend()
        self.keep(())
        for kind in self._kinds.values():
            if kind.timer is not None:
                kind.timer.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _kinds_of(self, table: str) -> list[SideEffectKind]:
        return [kind for (name, _), kind in self._kinds.items() if name == table]

    def _want(self, row: Row, raw: bytes) -> None:
        pending = PendingSideEffect.from_json(raw)
        if self._rows.get(row) == pending:
            return
        self._forget(row)
        self._rows[row] = pending
        if (row.table, pending.effect) not in self._kinds:  # of another version of the service, which may come back
            service = self._services[row.table].name
            log.error("effect unknown, left alone effect=%s service=%s", pending.effect, service)
        self._queue(row)

    def _forget(self, row: Row) -> None:
        before = self._rows.pop(row, None)
        kind = None if before is None else self._kinds.get((row.table, before.effect))
        if kind is not None:
            kind.attempts.remove(row)

    def _queue(self, row: Row) -> None:
        pending = self._rows[row]
        kind = self._kinds.get((row.table, pending.effect))
        if kind is None or row in self._doing or row in self._noting or row.partition in self._on_hold:
            return
        now = elapsed_s()
        age_s = 0.0 if pending.since is None else (self._clock() - pending.since).total_seconds()
        kind.attempts.add(row, kind.destination(pending), now - age_s, now)

    def _fill(self, table: str) -> None:
        for kind in self._kinds_of(table):
            self._go_on(kind)

    def _go_on(self, kind: SideEffectKind) -> None:
        """Begins as many as may be, and sees to it that this is tried again in time."""
        if self._resting:
            return
        now = elapsed_s()
        for row, reason in kind.attempts.over(now):
            self._note(row, TimedOut(kind.effect, self._rows[row], self._too_late(reason)))
        while (row_ := kind.attempts.begin(now)) is not None:
            self._begin(row_, kind)
        at = kind.attempts.wake_at(now)
        if kind.timer is not None and at is not None and kind.timer_at <= at:
            return  # it comes early enough
        if kind.timer is not None:
            kind.timer.cancel()
        kind.timer = None
        if at is not None:
            kind.timer, kind.timer_at = asyncio.get_running_loop().call_at(at, self._woken, kind), at

    def _woken(self, kind: SideEffectKind) -> None:
        kind.timer = None
        self._go_on(kind)

    def _too_late(self, reason: str) -> str:
        return f"not done within {self._timeout_s:g} s: {reason}"

    def _begin(self, row: Row, kind: SideEffectKind) -> None:
        pending, done = self._rows[row], self._done.pop(row, None)
        if done is not None and done.pending == pending:
            self._note(row, done)
        else:
            self._doing[row] = Attempt(kind.effect, row.key, pending, partial(self._ended, row))

    def _ended(self, row: Row, attempt: Attempt) -> None:
        if self._doing.get(row) is not attempt:
            return  # of an ownership that is over
        del self._doing[row]
        attempts, here = self._kinds[row.table, attempt.effect.name].attempts, row.partition not in self._on_hold
        if attempt.done:
            attempts.succeeded(row, elapsed_s())
            if attempt.failure is not None:
                self._tell("side effect refused", row, attempt.effect, attempt.failure)
            if row in self._rows and here:
                self._note(row, attempt)
                return
            self._done[row] = attempt
        elif attempt.failure is not None and self._failed(row, attempt, attempt.failure) and here:
            attempt.refused = self._too_late(str(attempt.failure) or summary(attempt.failure))
            self._note(row, attempt)
            return
        self._end(row, attempt)
        self._again(row)

    def _failed(self, row: Row, attempt: Attempt, error: Exception) -> bool:
        """Returns whether it is given up."""
        kind = self._kinds[row.table, attempt.effect.name]
        outage_s = error.longest_pause_s if isinstance(error, Outage) else None
        over = kind.attempts.failed(row, summary(error), elapsed_s(), outage_s, str(error))
        self._metrics.failed(kind.service.name, kind.effect.name)
        self._tell("side effect failed", row, attempt.effect, error)
        wanted = self._rows.get(row)
        if wanted is not None and wanted != attempt.pending:
            kind.attempts.forget([row])  # another one has nothing to do with it
        return over and wanted == attempt.pending

    def _tell(self, what: str, row: Row, effect: SideEffect[Any], error: Exception) -> None:
        """Logs a failure, though not each of a thousand, and nothing that names somebody: keys may, too."""
        kind = self._kinds[row.table, effect.name]
        if (left_out := kind.warnings.permit(elapsed_s())) is not None:
            said = what, kind.service.name, effect.name, summary(error), len(kind.attempts), left_out
            log.warning("%s service=%s effect=%s error=%s waiting=%d not_logged=%d", *said)

    def _end(self, row: Row, attempt: Attempt | TimedOut) -> None:
        """It is under way no longer."""
        self._kinds[row.table, attempt.effect.name].attempts.ended(row, elapsed_s())

    def _note(self, row: Row, attempt: Attempt | TimedOut) -> None:
        self._done[row] = attempt
        task = self._noting[row] = asyncio.create_task(self._noted(row, attempt), name=f"effect {row.table} noted")
        task.add_done_callback(partial(self._note_ended, row))

    def _note_ended(self, row: Row, task: "asyncio.Task[None]") -> None:
        if self._noting.get(row) is task:
            del self._noting[row]
            self._end(row, self._done.pop(row))
            self._again(row)

    def _again(self, row: Row) -> None:
        """What failed, or was replaced while it was being done, is to be done as well; and somebody else has a turn."""
        if row in self._rows:
            self._queue(row)
        self._fill(row.table)

    async def _noted(self, row: Row, attempt: Attempt | TimedOut) -> None:
        """Returns when it is decided that it was done."""
        service, effect, pending = self._services[row.table], attempt.effect, attempt.pending
        replaced = False

        def end(ctx: Context) -> None:
            nonlocal replaced
            replaced = ctx.get(service.pending, row.key) != pending
            if replaced:
                return  # meanwhile: that is to be done as well
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
    """The payload, or `None` if it is of another version of the service and cannot be read."""
    try:
        return effect.model.from_json(pending.payload)
    except ValidationError:
        return None
