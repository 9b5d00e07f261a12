"""Services in memory, whose processors are called one message at a time, in virtual time."""

import heapq
import itertools
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, NamedTuple

from ecosystem.what_if.memory import Memory, Undo
from runtime.loop.overlay import OutputRecord, ProcessorContext
from runtime.loop.process import TIMER_RETRY
from runtime.model.service import ScheduledTimer, Service
from runtime.model.topology import Topology

log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEVER = 2**63
"""Milliseconds since 1970, after all times."""


def at_ms(ms: int) -> datetime:
    """The time of a timestamp in milliseconds since 1970."""
    return _EPOCH + timedelta(milliseconds=ms)


class _Timer(NamedTuple):
    ms: int
    number: int
    at: datetime
    service: Service
    partition: int
    key: str


class ProcessorRunner:
    """Services with their state and timers. Nothing happens but what is called.

    Arguments:
        services: the services.
        partitions: of every topic.
    """

    def __init__(self, services: Sequence[Service], partitions: int) -> None:
        self.topology = Topology(tuple(services))
        self.memory = Memory(self.topology, partitions)
        self.failed = 0
        """Messages whose processor raised: they are dead-lettered in reality."""
        self._services = {s.timer_table.name: s for s in services if s.all_timers}
        self._timers: list[_Timer] = []
        self._numbers = itertools.count()

    def run(
        self,
        service: Service,
        processor: Callable[[Any, Any], None],
        subject: Any,
        partition: int,
        time: datetime,
        undo: Undo | None = None,
    ) -> Sequence[OutputRecord]:
        """Calls a processor, keeps what it wrote, and returns what it sent. What a failing one did is dropped."""
        ctx = ProcessorContext(self.memory, service, partition, time)
        try:
            processor(subject, ctx)
        except Exception as error:  # whatever a processor may raise
            log.debug("processor failed service=%s error=%r", service.name, error)
            self.failed += 1
            return ()
        self._keep(ctx, partition, undo)
        return ctx.sent

    def next_timer_ms(self) -> int:
        """When the next timer is due."""
        timers = self._timers
        while timers:
            row = self.memory.read(timers[0].service.timer_table, timers[0].partition, timers[0].key)
            if row is not None and row.at == timers[0].at:
                return timers[0].ms
            heapq.heappop(timers)  # cancelled, or scheduled anew
        return NEVER

    def fire(self) -> tuple[Service, Sequence[OutputRecord]]:
        """Fires the next timer, and returns its service and what that sent."""
        timer = heapq.heappop(self._timers)
        service = timer.service
        ctx = ProcessorContext(self.memory, service, timer.partition, self.memory.now)
        ctx.set_timer(timer.key, None)
        try:
            service.on_timer(timer.key, ctx)
        except Exception as error:  # whatever a processor may raise
            log.debug("timer failed service=%s error=%r", service.name, error)
            self.failed += 1
            ctx = ProcessorContext(self.memory, service, timer.partition, self.memory.now)
            ctx.set_timer(timer.key, self.memory.now + TIMER_RETRY)
        self._keep(ctx, timer.partition, None)
        return service, ctx.sent

    def _keep(self, ctx: ProcessorContext, partition: int, undo: Undo | None) -> None:
        if ctx.writes:
            self.memory.keep(ctx.writes, partition, undo)
            for (table, key), row in ctx.writes.items():
                if isinstance(row, ScheduledTimer) and (service := self._services.get(table)):
                    ms = ceil((row.at - _EPOCH) / timedelta(milliseconds=1))
                    heapq.heappush(self._timers, _Timer(ms, next(self._numbers), row.at, service, partition, key))
