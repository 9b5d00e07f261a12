"""Effects: what a service does outside Kafka. Decided like anything, done after the commit, repeated until done.

What is to be done is a row of the service's table of effects, so it survives crashes and moves with its partition. When
it is done, or refused for good, that is decided by the loop like a call, and the row goes. A crash in between has it
done again: at least once, and its key is what lets the other side tell.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple, cast

from runtime.backoff import Backoff
from runtime.calls import Asked
from runtime.overlay import Turn
from runtime.plan import Plan
from runtime.service import Context, Pending, RefusedForGood, Service
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

    One of a row at a time, in the order they came. One that failed is tried again after a pause that doubles up to
    `LONGEST_PAUSE_S`, and counts among those that are being done: while the other side is away, nothing piles up there,
    and what other services have to do goes on.

    Arguments:
        plan: the worker's services.
        decided: puts a call to the loop.
    """

    AT_ONCE = 16
    FIRST_PAUSE_S = 0.5
    LONGEST_PAUSE_S = 60.0

    def __init__(self, plan: Plan, decided: Decided) -> None:
        self._services = {s.pending.name: s for s in plan.services if s.effects}
        self._effects = {(s.pending.name, e.name): e for s in plan.services for e in s.effects}
        self._decided = decided
        self._rows: dict[_Row, bytes] = {}
        self._waiting: dict[str, deque[_Row]] = {table: deque() for table in self._services}
        self._doing: dict[_Row, asyncio.Task[None]] = {}
        self._on_hold: set[int] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """Forgets all and stops what is being done: whoever owns the partitions next does it again."""
        self._rows.clear()
        for waiting in self._waiting.values():
            waiting.clear()
        for task in self._doing.values():
            task.cancel()
        self._doing.clear()
        self._on_hold.clear()

    def hold(self, partitions: Iterable[int]) -> None:
        """Keeps effects of these partitions back: that they were done could not be decided yet."""
        self._on_hold.update(partitions)

    def release(self, partitions: Iterable[int]) -> None:
        """Lets effects of these partitions be done from now on."""
        released = self._on_hold.intersection(partitions)
        self._on_hold -= released
        for row in self._rows:
            if row.partition in released:
                self._waiting[row.table].append(row)
        for table in self._services:
            self._fill(table)

    def load(self, table: str, partition: int, store: Store) -> None:
        """Adds what a store holds, when its partition is taken over. Other tables are passed over."""
        if table in self._services:
            for key, raw in store.items():
                self._note(_Row(partition, table, key.decode()), raw)
            self._fill(table)

    def apply(self, table: str, partition: int, rows: Mapping[bytes, bytes | None]) -> None:
        """Notes what a committed batch decided. Other tables are passed over."""
        if table in self._services:
            for key, raw in rows.items():
                row = _Row(partition, table, key.decode())
                if raw is None:
                    self._rows.pop(row, None)
                else:
                    self._note(row, raw)
            self._fill(table)

    async def stop(self) -> None:
        """Stops what is being done."""
        tasks = list(self._doing.values())
        self.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _note(self, row: _Row, raw: bytes) -> None:
        if row not in self._rows and row not in self._doing and row.partition not in self._on_hold:
            self._waiting[row.table].append(row)
        self._rows[row] = raw

    def _fill(self, table: str) -> None:
        waiting, doing = self._waiting[table], sum(row.table == table for row in self._doing)
        while waiting and doing < self.AT_ONCE:
            row = waiting.popleft()
            if row in self._rows and row not in self._doing:
                task = self._doing[row] = asyncio.create_task(self._do(row), name=f"effect {row.table}")
                task.add_done_callback(partial(self._ended, row))
                doing += 1

    def _ended(self, row: _Row, task: asyncio.Task[None]) -> None:
        if self._doing.get(row) is not task:
            return  # of an ownership that is over
        del self._doing[row]
        if row in self._rows:
            self._waiting[row.table].append(row)  # replaced while it was being done
        self._fill(row.table)

    async def _do(self, row: _Row) -> None:
        """Returns when it is done and that is decided."""
        pending = Pending.from_json(self._rows[row])
        effect = self._effects[row.table, pending.effect]
        payload = effect.model.from_json(pending.payload)
        refused: list[str] = []

        async def perform() -> None:
            try:
                await effect.perform(row.key, payload)
            except RefusedForGood as error:
                log.warning("effect refused effect=%s reason=%s", effect.name, error)
                refused.append(str(error))

        def end(ctx: Context) -> None:
            if ctx.get(service.pending, row.key) != pending:
                return  # replaced meanwhile: that is to be done as well
            ctx.delete(service.pending, row.key)
            if not refused:
                if effect.on_done is not None:
                    effect.on_done(payload, ctx)
            else:
                cast("Turn", ctx).set_aside(row.key, pending, refused[0])
                if effect.on_refused is not None:
                    effect.on_refused(payload, refused[0], ctx)

        async def note() -> None:
            await self._decided(service, row.partition, end).answer

        service = self._services[row.table]
        await self._until_done(effect.name, perform)
        await self._until_done(effect.name, note)

    async def _until_done(self, name: str, what: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(self.FIRST_PAUSE_S, self.LONGEST_PAUSE_S)
        while True:
            try:
                await what()
            except Exception as error:  # whatever it is, it must be done: it is tried again
                log.warning("effect failed, trying again effect=%s seconds=%.1f error=%r", name, backoff.next_s, error)
                await backoff.pause()
            else:
                return
