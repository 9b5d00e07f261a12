"""Side effects in order: those of one sequence are performed one after the other, each once the one before has ended.

    event ──► sequence of the order, at its destination ──► first item: a side effect, retried until it ends
         └──► overflow of the destination, while `WINDOW` of its sequences are in flight in the partition

Items wait in rows on disk. Only the first item of a sequence in flight is a side effect, which a worker holds in
memory: a destination that accepts nothing for days costs disk, not memory. All items of a destination pass its overflow
in the order of their arrival while it is not empty, so the order within each sequence is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, cast

from runtime.model.context import Context, DeadLetteringContext, PendingSideEffect, Table
from runtime.model.replays import suppresses_side_effects
from runtime.model.service import SideEffect
from runtime.model.timers import Timer
from runtime.state.queues import SLICE, Queue
from schemas.wire import Message

M = TypeVar("M", bound=Message)

WINDOW = 100
"""Sequences of a destination that are in flight in a partition. A failing one keeps its place until it is
dead-lettered: fewer would let a few of them hold up the destination, more cost memory for each dead destination."""


class InFlight(Message):
    """Row of a destination: how many of its sequences are in flight in the partition."""

    count: int


@dataclass(frozen=True, slots=True)
class Place:
    """What orders a payload among others.

    Arguments:
        destination: its recipient. Destinations do not delay each other.
        sequence: payloads to one destination with the same sequence are performed in the order of their `enqueue`.
        key: of the side effect, unique.
        enqueued_at: when it was enqueued, UTC.
    """

    destination: str
    sequence: str
    key: str
    enqueued_at: datetime


class SerialSideEffects(Generic[M]):
    """A kind of side effect whose payloads are performed in order. The service lists its effect, tables and timers.

    A payload that is dead-lettered lets the next one of its sequence start. Redriven, it is performed at once.

    Arguments:
        service: name of the service.
        effect: its declaration, whose callbacks this class provides.
        place: tells what orders a payload.
        max_waiting: payloads that may wait in a sequence, and in the overflow of a destination in a partition. A
            further one is dead-lettered without an attempt.
        max_age: time after which a payload that still waits behind others is dead-lettered without an attempt.
    """

    def __init__(
        self,
        service: str,
        effect: Callable[[Callable[[M, Context], None], Callable[[M, str, Context], None]], SideEffect[M]],
        place: Callable[[M], Place],
        *,
        max_waiting: int,
        max_age: timedelta,
    ) -> None:
        self.effect = effect(self._on_done, self._on_rejected)
        self._place = place
        self._max_waiting = max_waiting
        self._max_age = max_age
        self._sequences = Queue(f"{service}-sequences", self.effect.model)
        self._overflow = Queue(f"{service}-overflow", self.effect.model)
        self._in_flight = Table(f"{service}-in-flight", InFlight)
        self._refill = Timer("refill", self._start_from_overflow, inherits=False)
        self.tables: tuple[Table[Any], ...] = (self._sequences.table, self._overflow.table, self._in_flight)
        self.timers = (self._refill,)

    def enqueue(self, payload: M, ctx: Context) -> None:
        """Performs a payload once all earlier ones of its sequence have ended. Nothing for a replayed message."""
        place = self._place(payload)
        if suppresses_side_effects(ctx.inherited):
            ctx.enqueue(self.effect, place.key, payload)  # which counts that it is suppressed
            return
        ahead = self._overflow.numbers(ctx, place.destination)
        if not ahead and self._admit(place, payload, ctx):
            return
        if len(ahead) >= self._max_waiting:
            self._dead_letter(place, payload, f"{len(ahead)} others wait for this destination already", ctx)
            return
        self._overflow.append(ctx, place.destination, place.key, payload)

    def waiting(self, destination: str, ctx: Context) -> int:
        """How many payloads wait in the overflow of a destination, in the partition of the context."""
        return len(self._overflow.numbers(ctx, destination))

    def _admit(self, place: Place, payload: M, ctx: Context) -> bool:
        """Adds a payload to its sequence, unless that would be one sequence in flight too many."""
        name = _name(place)
        ahead = self._sequences.numbers(ctx, name)
        if not ahead:
            in_flight = self._count(place.destination, ctx)
            if in_flight >= WINDOW:
                return False
            ctx.put(self._in_flight, place.destination, InFlight(count=in_flight + 1))
            self._sequences.append(ctx, name, place.key, payload)
            ctx.enqueue(self.effect, place.key, payload)
        elif len(ahead) >= self._max_waiting:
            self._dead_letter(place, payload, f"{len(ahead)} others wait in its sequence already", ctx)
        else:
            self._sequences.append(ctx, name, place.key, payload)
        return True

    def _admit_from(self, number: int, place: Place, item: M, ctx: Context) -> bool:
        with self._overflow.acting_for(ctx, place.destination, number):
            return self._admit(place, item, ctx)

    def _on_done(self, payload: M, ctx: Context) -> None:
        place = self._place(payload)
        name = _name(place)
        self._sequences.advance(ctx, name, self._sequences.numbers(ctx, name).stop)
        numbers = self._sequences.numbers(ctx, name)
        first = self._sequences.get(ctx, name, numbers.start) if numbers else None
        if first is None or self._place(first).key != place.key:
            return  # it was redriven: others of its sequence have gone on without it
        for tried, number in enumerate(numbers):
            item = self._sequences.get(ctx, name, number)
            if item is not None and number > numbers.start:
                its = self._place(item)
                if tried >= SLICE or not self._is_late(its, ctx):
                    with self._sequences.acting_for(ctx, name, number):
                        ctx.enqueue(self.effect, its.key, item)
                    return
                self._dead_letter(its, item, f"it waited behind others for {self._max_age.total_seconds():g} s", ctx)
            self._sequences.remove(ctx, name, number)
            self._sequences.advance(ctx, name, number + 1)
        left = self._count(place.destination, ctx) - 1
        if left > 0:
            ctx.put(self._in_flight, place.destination, InFlight(count=left))
        else:
            ctx.delete(self._in_flight, place.destination)
        self._start_from_overflow(place.destination, ctx)

    def _on_rejected(self, payload: M, _: str, ctx: Context) -> None:
        self._on_done(payload, ctx)

    def _start_from_overflow(self, destination: str, ctx: Context) -> None:
        """Moves payloads from the overflow into their sequences, up to `SLICE` of them at a time."""
        numbers = self._overflow.numbers(ctx, destination)
        for number in numbers[:SLICE]:
            item = self._overflow.get(ctx, destination, number)
            if item is not None:
                place = self._place(item)
                if self._is_late(place, ctx):
                    reason = f"it waited behind others for {self._max_age.total_seconds():g} s"
                    self._dead_letter(place, item, reason, ctx)
                elif not self._admit_from(number, place, item, ctx):
                    return
            self._overflow.remove(ctx, destination, number)
            self._overflow.advance(ctx, destination, number + 1)
        if len(numbers) > SLICE:
            ctx.schedule(self._refill, destination, ctx.now)

    def _is_late(self, place: Place, ctx: Context) -> bool:
        return ctx.now - place.enqueued_at > self._max_age

    def _count(self, destination: str, ctx: Context) -> int:
        row = ctx.get(self._in_flight, destination)
        return 0 if row is None else row.count

    def _dead_letter(self, place: Place, payload: M, reason: str, ctx: Context) -> None:
        pending = PendingSideEffect(effect=self.effect.name, payload=payload.to_json(), since=place.enqueued_at)
        cast("DeadLetteringContext", ctx).dead_letter(place.key, pending, reason)


def _name(place: Place) -> str:
    return f"{len(place.destination)}/{place.destination}/{place.sequence}"
