"""Effects: what a service does outside Kafka. Decided like anything, done after the commit, repeated until done.

What is to be done is a row of the service's table of effects, so it survives crashes and moves with its partition. When
it is done, or refused for good, that is decided by the loop like a call, and the row goes. A crash in between has it
done again: at least once, and its key is what lets the other side tell. Where partitions change hands without one, it
is noted before they go; and if they come back to where it was done, it is noted then.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import NamedTuple, cast

from runtime.attempt import Attempt, until_done
from runtime.calls import Asked
from runtime.clock import elapsed_s
from runtime.overlay import Turn
from runtime.plan import Plan
from runtime.service import Context, Pending, Service
from runtime.state import Store

log = logging.getLogger(__name__)

Decided = Callable[[Service, int, Callable[[Context], None]], "Asked[None]"]
"""Puts a call to the loop. Raises `NotHere` and `Unavailable`."""


class _Row(NamedTuple):
    """Whose effect it is."""

    partition: int
    table: str
    key: str


class Effects:
    """The effects of the partitions a worker owns: those that wait, and of each service up to `AT_ONCE` being done.

    One of a row at a time, in the order they came. One that failed is tried again after a pause, and counts among those
    that are being done: while the other side is away, nothing piles up there, and what other services have to do goes
    on.

    Arguments:
        plan: the worker's services.
        decided: puts a call to the loop.
    """

    AT_ONCE = 16

    def __init__(self, plan: Plan, decided: Decided) -> None:
        self._services = {s.pending.name: s for s in plan.services if s.effects}
        self._effects = {(s.pending.name, e.name): e for s in plan.services for e in s.effects}
        self._decided = decided
        self._rows: dict[_Row, Pending] = {}
        self._waiting: dict[str, deque[_Row]] = {table: deque() for table in self._services}
        self._doing: dict[_Row, Attempt] = {}
        self._done: dict[_Row, Attempt] = {}
        """What was done here, and is not known to be noted yet."""
        self._noting: dict[_Row, asyncio.Task[None]] = {}
        self._on_hold: set[int] = set()
        self._resting = False

    def __len__(self) -> int:
        return len(self._rows)

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
        for waiting in self._waiting.values():
            waiting.clear()
        self._on_hold.clear()
        for task in self._noting.values():
            task.cancel()
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
            self._doing.pop(row).task.cancel()

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
                self._want(_Row(partition, table, key.decode()), raw)
            for row in [row for row in self._done if row[:2] == (partition, table) and row not in self._rows]:
                del self._done[row]  # it was noted: only the answer had not come
            self._fill(table)

    def apply(self, table: str, partition: int, rows: Mapping[bytes, bytes | None]) -> None:
        """Notes what a committed batch decided. Other tables are passed over."""
        if table in self._services:
            for key, raw in rows.items():
                row = _Row(partition, table, key.decode())
                if raw is None:
                    self._rows.pop(row, None)
                else:
                    self._want(row, raw)
            self._fill(table)

    async def stop(self) -> None:
        """Stops what is being done."""
        tasks = [*(attempt.task for attempt in self._doing.values()), *self._noting.values()]
        self.suspend()
        self.keep(())
        await asyncio.gather(*tasks, return_exceptions=True)

    def _want(self, row: _Row, raw: bytes) -> None:
        known = row in self._rows
        self._rows[row] = Pending.from_json(raw)
        if not known:
            self._queue(row)

    def _queue(self, row: _Row) -> None:
        if row not in self._doing and row not in self._noting and row.partition not in self._on_hold:
            self._waiting[row.table].append(row)

    def _fill(self, table: str) -> None:
        waiting = self._waiting[table]
        busy = sum(row.table == table for row in (*self._doing, *self._noting))
        while waiting and busy < self.AT_ONCE and not self._resting:
            row = waiting.popleft()
            if row in self._rows and row not in self._doing and row not in self._noting:
                self._begin(row)
                busy += 1

    def _begin(self, row: _Row) -> None:
        pending, done = self._rows[row], self._done.pop(row, None)
        if done is not None and done.pending == pending:
            self._note(row, done)
        else:
            effect = self._effects.get((row.table, pending.effect))
            if effect is None:  # of another version of the service, which may come back
                log.error(
                    "effect unknown, left alone effect=%s service=%s", pending.effect, self._services[row.table].name
                )
                return
            self._doing[row] = Attempt(effect, row.key, pending, partial(self._ended, row))

    def _ended(self, row: _Row, attempt: Attempt) -> None:
        if self._doing.get(row) is not attempt:
            return  # of an ownership that is over
        del self._doing[row]
        if attempt.done and row in self._rows and row.partition not in self._on_hold:
            self._note(row, attempt)
            return
        if attempt.done:
            self._done[row] = attempt
        self._again(row)

    def _note(self, row: _Row, attempt: Attempt) -> None:
        self._done[row] = attempt
        task = self._noting[row] = asyncio.create_task(self._noted(row, attempt), name=f"effect {row.table} noted")
        task.add_done_callback(partial(self._note_ended, row))

    def _note_ended(self, row: _Row, task: "asyncio.Task[None]") -> None:
        if self._noting.get(row) is task:
            del self._noting[row]
            del self._done[row]
            self._again(row)

    def _again(self, row: _Row) -> None:
        """What was replaced while it was being done is to be done as well; and somebody else has a turn."""
        if row in self._rows:
            self._queue(row)
        self._fill(row.table)

    async def _noted(self, row: _Row, attempt: Attempt) -> None:
        """Returns when it is decided that it was done."""
        service, effect, pending = self._services[row.table], attempt.effect, attempt.pending

        def end(ctx: Context) -> None:
            if ctx.get(service.pending, row.key) != pending:
                return  # replaced meanwhile: that is to be done as well
            ctx.delete(service.pending, row.key)
            payload = effect.model.from_json(pending.payload)
            if attempt.refused is None:
                if effect.on_done is not None:
                    effect.on_done(payload, ctx)
            else:
                cast("Turn", ctx).set_aside(row.key, pending, attempt.refused)
                if effect.on_refused is not None:
                    effect.on_refused(payload, attempt.refused, ctx)

        async def note() -> None:
            await self._decided(service, row.partition, end).answer

        await until_done(effect.name, note)
