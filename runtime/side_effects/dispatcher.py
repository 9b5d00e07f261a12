"""Performs side effects after the commit that enqueued them, until they are acknowledged.

A side effect is a row of its service's table, so it survives crashes and moves with its partition:

    enqueued ──► waiting ──► running ──► succeeded or rejected ──► acknowledging ──► row deleted
                  ▲   │         │                                       ▲   │
                  │   └─────────┼───────────── timed out ───────────────┘   │
                  └── failed ───┘                     partition revoked: acknowledged once it comes back,
                                                      or performed again by the next owner

The acknowledgement is a command of the loop. A crash before it repeats the side effect: at least once, and its key lets
the other side deduplicate. Without a crash, running side effects are acknowledged before partitions are revoked.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from functools import partial

from runtime.common.clock import elapsed_s, utc_now
from runtime.errors import Outage
from runtime.metrics.side_effects import METRICS, SideEffectMetrics, SideEffectStatus
from runtime.model.service import PendingSideEffect
from runtime.model.topology import Topology
from runtime.model.traces import CURRENT
from runtime.side_effects import acknowledgement
from runtime.side_effects.acknowledgement import SubmitCommand, TimedOut
from runtime.side_effects.attempt import Attempt, summary
from runtime.side_effects.kinds import SideEffectKind
from runtime.side_effects.lanes import RowId
from runtime.side_effects.scheduler import LONGEST_PAUSE_S, TIMEOUT_S
from runtime.side_effects.traces import SideEffectTracer
from runtime.state.stores import Store
from runtime.tracing.tracer import Tracer

log = logging.getLogger(__name__)


class SideEffects:
    """The side effects of the partitions that a worker owns.

    A row has one running side effect at most. One that fails makes room for others, and is retried after a pause
    (`runtime/side_effects/scheduler.py`).

    Arguments:
        topology: the services of the worker.
        submit: submits a command to the loop.
        clock: the time, UTC.
        timeout_s: seconds after which a failing one is dead-lettered.
        longest_s: seconds, the longest pause between two attempts of one.
        metrics: counts outcomes.
        tracer: of the worker, if it traces.
    """

    def __init__(
        self,
        topology: Topology,
        submit: SubmitCommand,
        *,
        clock: Callable[[], datetime] = utc_now,
        timeout_s: float = TIMEOUT_S,
        longest_s: float = LONGEST_PAUSE_S,
        metrics: SideEffectMetrics = METRICS,
        tracer: Tracer | None = None,
    ) -> None:
        self._kinds = {
            (s.pending.name, e.name): SideEffectKind(s, e, longest_s, timeout_s)
            for s in topology.services
            for e in s.side_effects
        }
        self._services = {s.pending.name: s for s in topology.services if s.side_effects}
        self._submit = submit
        self._clock = clock
        self._timeout_s = timeout_s
        self._metrics = metrics
        self._traces = None if tracer is None else SideEffectTracer(tracer)
        self._rows: dict[RowId, PendingSideEffect] = {}
        self._running: dict[RowId, Attempt] = {}
        self._finished: dict[RowId, Attempt | TimedOut] = {}
        """Succeeded, rejected or timed out here, and not known to be acknowledged."""
        self._acknowledging: dict[RowId, asyncio.Task[None]] = {}
        self._on_hold: set[int] = set()
        self._paused = False

    def __len__(self) -> int:
        return len(self._rows)

    def statuses(self) -> list[SideEffectStatus]:
        """The status of each kind, for metrics and `/readyz`."""
        return [kind.status for kind in self._kinds.values()]

    # Before, during and after a rebalance.

    def pause(self) -> None:
        """Starts no more side effects, and cancels those that may be cancelled."""
        self._paused = True
        self._cancel_revocable()

    async def drain(self, timeout_s: float) -> None:
        """Starts no more side effects; waits up to `timeout_s` until running ones are acknowledged."""
        self.pause()
        deadline = elapsed_s() + timeout_s
        while tasks := [*(attempt.task for attempt in self._running.values()), *self._acknowledging.values()]:
            if (left_s := deadline - elapsed_s()) <= 0:
                return
            await asyncio.wait(tasks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)

    def unload(self) -> None:
        """Removes all rows, as partitions are revoked. Irrevocable attempts continue: the partitions may come back."""
        self._rows.clear()
        for kind in self._kinds.values():
            kind.attempts.clear()
        self._on_hold.clear()
        for row, task in self._acknowledging.items():
            task.cancel()
            self._free_slot(row, self._finished[row])
        self._acknowledging.clear()
        self._cancel_revocable()

    def retain(self, partitions: Collection[int]) -> None:
        """Cancels and forgets side effects of all other partitions: another owner may have performed them since."""
        for row in [row for row in self._finished if row.partition not in partitions]:
            del self._finished[row]
        for row in [row for row in self._running if row.partition not in partitions]:
            attempt = self._running.pop(row)
            attempt.task.cancel()
            self._free_slot(row, attempt)
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

    async def stop(self) -> None:
        """Cancels all side effects."""
        self._paused = True
        tasks = [*(attempt.task for attempt in self._running.values()), *self._acknowledging.values()]
        self.unload()
        self.retain(())
        for kind in self._kinds.values():
            kind.cancel_timer()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _cancel_revocable(self) -> None:
        for attempt in self._running.values():
            if not attempt.irrevocable:
                attempt.task.cancel()

    # Rows.

    def load(self, table: str, partition: int, store: Store) -> None:
        """Adds the side effects of a restored store. Other tables are ignored."""
        if table in self._services:
            for key, raw in store.items():
                self._add(RowId(partition, table, key.decode()), raw)
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
                row = RowId(partition, table, key.decode())
                if raw is None:
                    self._remove(row)
                else:
                    self._add(row, raw)
            self._start_waiting(table)

    def _kinds_of(self, table: str) -> list[SideEffectKind]:
        return [kind for (name, _), kind in self._kinds.items() if name == table]

    def _add(self, row: RowId, raw: bytes) -> None:
        pending = PendingSideEffect.from_json(raw)
        if self._rows.get(row) == pending:
            return
        self._remove(row)
        self._rows[row] = pending
        if (row.table, pending.effect) not in self._kinds:  # of another version, which may be deployed again
            service = self._services[row.table].name
            log.error("unknown side effect ignored effect=%s service=%s", pending.effect, service)
        self._schedule(row)

    def _remove(self, row: RowId) -> None:
        pending = self._rows.pop(row, None)
        kind = None if pending is None else self._kinds.get((row.table, pending.effect))
        if kind is not None:
            kind.attempts.remove(row)

    # Attempts.

    def _schedule(self, row: RowId) -> None:
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
        for row, reason in kind.attempts.start_timed_out(now):
            self._acknowledge(row, TimedOut(kind.effect, self._rows[row], self._timeout_reason(reason)))
        while (next_row := kind.attempts.start_next(now)) is not None:
            self._start(next_row, kind)
        kind.set_timer(kind.attempts.next_check_at(now), partial(self._start_kind, kind))

    def _start(self, row: RowId, kind: SideEffectKind) -> None:
        pending, finished = self._rows[row], self._finished.pop(row, None)
        if finished is not None and finished.pending == pending:
            self._acknowledge(row, finished)
        else:
            span = None if self._traces is None else self._traces.begin(kind.service.name, kind.effect, pending)
            self._running[row] = Attempt(kind.effect, row.key, pending, partial(self._attempt_ended, row), span)

    def _attempt_ended(self, row: RowId, attempt: Attempt) -> None:
        if self._traces is not None and attempt.span is not None:
            self._traces.end(attempt.span, attempt)
        if self._running.get(row) is not attempt:
            return  # of an earlier ownership
        del self._running[row]
        kind, may_acknowledge = self._kinds[row.table, attempt.effect.name], row.partition not in self._on_hold
        if attempt.done:
            kind.attempts.succeeded(row, elapsed_s())
            if attempt.failure is not None:
                kind.log_failure("side effect rejected", attempt.failure)
            if row in self._rows and may_acknowledge:
                self._acknowledge(row, attempt)
                return
            self._finished[row] = attempt
        elif attempt.failure is not None and self._record_failure(row, attempt, attempt.failure) and may_acknowledge:
            attempt.rejection = self._timeout_reason(str(attempt.failure) or summary(attempt.failure))
            self._acknowledge(row, attempt)
            return
        self._free_slot(row, attempt)
        self._reschedule(row)

    def _record_failure(self, row: RowId, attempt: Attempt, error: Exception) -> bool:
        """Records a failed attempt. Returns whether the side effect has timed out."""
        kind = self._kinds[row.table, attempt.effect.name]
        outage_s = error.longest_pause_s if isinstance(error, Outage) else None
        timed_out = kind.attempts.failed(row, summary(error), elapsed_s(), outage_s, str(error))
        self._metrics.failed(kind.service.name, kind.effect.name)
        kind.log_failure("side effect failed", error)
        pending = self._rows.get(row)
        if pending is not None and pending != attempt.pending:
            kind.attempts.forget([row])  # the new payload has not failed yet
        return timed_out and pending == attempt.pending

    def _timeout_reason(self, reason: str) -> str:
        return f"not done within {self._timeout_s:g} s: {reason}"

    def _free_slot(self, row: RowId, outcome: Attempt | TimedOut) -> None:
        self._kinds[row.table, outcome.effect.name].attempts.free_slot(row, elapsed_s())

    def _reschedule(self, row: RowId) -> None:
        """Schedules a row again that failed or was replaced meanwhile, and starts others in its slot."""
        if row in self._rows:
            self._schedule(row)
        self._start_waiting(row.table)

    # Acknowledgement.

    def _acknowledge(self, row: RowId, outcome: Attempt | TimedOut) -> None:
        self._finished[row] = outcome
        committing = self._commit_acknowledgement(row, outcome)
        task = self._acknowledging[row] = asyncio.create_task(committing, name=f"acknowledge {row.table}")
        task.add_done_callback(partial(self._acknowledged, row))

    async def _commit_acknowledgement(self, row: RowId, outcome: Attempt | TimedOut) -> None:
        service = self._services[row.table]
        if isinstance(outcome, Attempt) and outcome.span is not None:
            CURRENT.set(outcome.span.context)
        if await acknowledgement.acknowledge(self._submit, service, row, outcome):
            rejected = outcome.rejection is not None
            self._metrics.ended(service.name, outcome.effect.name, dead_letter=rejected)

    def _acknowledged(self, row: RowId, task: "asyncio.Task[None]") -> None:
        if self._acknowledging.get(row) is task:
            del self._acknowledging[row]
            self._free_slot(row, self._finished.pop(row))
            self._reschedule(row)
