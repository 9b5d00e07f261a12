"""The declaration of a service: processors with their topics and tables. Pure: no I/O, no clock.

A service counts what is in stock, and sets a timer that forgets it:

>>> from datetime import timedelta
>>> from runtime.testing import TopologyTestDriver
>>> from schemas.messages import StockLevel
>>> from schemas.topics import WAREHOUSE_INVENTORY
>>> LEVELS = Table("counter-levels", StockLevel)
>>> FORGET = Timer("forget", lambda product, ctx: ctx.delete(LEVELS, product))
>>> def on_level(level: StockLevel, ctx: Context) -> None:
...     ctx.put(LEVELS, level.product, level)
...     ctx.schedule(FORGET, level.product, ctx.now + timedelta(hours=1))
>>> counter = Service("counter", (Input(WAREHOUSE_INVENTORY, on_level),), (), (LEVELS,), timers=(FORGET,))
>>> driver = TopologyTestDriver(counter)
>>> driver.send(WAREHOUSE_INVENTORY, StockLevel(product="mug", count=3))
>>> driver.row(LEVELS, "mug")
StockLevel(product='mug', count=3)
>>> driver.advance(timedelta(hours=1))
>>> driver.row(LEVELS, "mug") is None
True
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

from runtime.model.context import Context, PendingSideEffect, RejectedSideEffect, ScheduledTimer, Table
from runtime.model.timers import EXPIRY, Expiring, OnKey, Timer
from schemas.topics import FORTNIGHT, Topic
from schemas.wire import Message

__all__ = [
    "EFFECTS_CHANGELOG",
    "SUPPRESSED",
    "TIMERS_CHANGELOG",
    "Context",
    "Expiring",
    "Input",
    "OnKey",
    "PendingSideEffect",
    "Processor",
    "RejectedSideEffect",
    "ScheduledTimer",
    "Service",
    "SideEffect",
    "Start",
    "Table",
    "Timer",
    "repartition_to",
]

M = TypeVar("M", bound=Message)

TIMERS_CHANGELOG = "-timers-changelog"
"""Suffix of the changelogs of all timer tables."""

EFFECTS_CHANGELOG = "-effects-changelog"
"""Suffix of the changelogs of all tables of side effects."""

SUPPRESSED = "side effect of a replay suppressed"
"""Event that the runtime counts for services with side effects."""


Processor = Callable[[M, Context], None]


def repartition_to(topic: Topic[M]) -> Processor[M]:
    """The processor that produces each message to a repartition topic."""

    def repartition(message: M, ctx: Context) -> None:
        ctx.send(topic, message)

    return repartition


@dataclass(frozen=True, slots=True, eq=False)
class SideEffect(Generic[M]):
    """Something that a service does outside Kafka: send an e-mail, insert a row into a database.

    Arguments:
        name: unique within the service.
        model: model of the payload.
        perform: called with key and payload. May be called again for the same key: the other side deduplicates by it.
            Raises `SideEffectRejected` if no retry can succeed, `Outage` if every other side effect would fail as well,
            or any other error to be retried.
        on_done: processor of a side effect that succeeded.
        on_rejected: processor of a side effect that was rejected, with the reason; also if it did not succeed within
            `SIDE_EFFECT_TIMEOUT_S`.
        destination: groups side effects that fail together, such as e-mails to one domain. After several failures in a
            row the others to the destination wait until one succeeds. Default: none.
        concurrency: how many a worker performs at a time.
        per_destination: how many of them to one destination. Default: no limit of its own.
    """

    name: str
    model: type[M]
    perform: Callable[[str, M], Awaitable[None]]
    on_done: Processor[M] | None = None
    on_rejected: Callable[[M, str, Context], None] | None = None
    destination: Callable[[M], str] | None = None
    concurrency: int = 16
    per_destination: int | None = None

    def enqueue_by(self, key: Callable[[M], str]) -> Processor[M]:
        """The processor that enqueues the side effect of each message, under this key of the message."""

        def enqueue(message: M, ctx: Context) -> None:
            ctx.enqueue(self, key(message), message)

        return enqueue


class Start(Enum):
    """Where a service starts in a topic that it has never read."""

    BEGINNING = "beginning"
    """At the first record that the topic still has."""
    NOW = "now"
    """Where the other services of its group are; at the end of the topic if it has none."""


@dataclass(frozen=True, slots=True)
class Input(Generic[M]):
    """A topic that a service consumes, and the processor of its messages.

    Arguments:
        topic: the topic.
        processor: called with each message and a `Context`.
        on_tombstone: called with the key of a message without value. Without it a tombstone is dead-lettered.
        start: where a service starts that has never read the topic. `CATCH_UP` overrides `Start.NOW`.
    """

    topic: Topic[M]
    processor: Processor[M]
    on_tombstone: OnKey | None = None
    start: Start = Start.BEGINNING


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """A service: its inputs, outputs and state. Which services share a worker is a matter of deployment.

    Arguments:
        name: unique in the ecosystem; its tables begin with it.
        inputs: topics and their processors.
        outputs: topics that processors may send to.
        tables: state.
        side_effects: what processors may enqueue.
        timers: kinds of timers that processors may set.
        ttl_tables: state whose rows expire.
        events: what processors count (`Context.count`). Metrics show each from 0 on, so that the first one is seen.
        stages: stages whose times processors observe (`Context.observe`).

    >>> from schemas.topics import ORDERS
    >>> service = Service("printer", inputs=(Input(ORDERS, lambda order, ctx: None),), outputs=())
    >>> [topic.name for topic in service.topics]
    ['orders']
    >>> Service("printer", (), (), tables=(Table("levels", ScheduledTimer),))
    Traceback (most recent call last):
    ValueError: table 'levels' of service 'printer' must be named 'printer-…'
    """

    name: str
    inputs: tuple[Input[Any], ...]
    outputs: tuple[Topic[Any], ...]
    tables: tuple[Table[Any], ...] = ()
    side_effects: tuple[SideEffect[Any], ...] = ()
    timers: tuple[Timer, ...] = ()
    ttl_tables: tuple[Expiring, ...] = ()
    events: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    timer_table: Table[ScheduledTimer] = field(init=False)
    pending: Table[PendingSideEffect] = field(init=False)
    redrive_topic: Topic[RejectedSideEffect] = field(init=False)
    all_timers: tuple[Timer, ...] = field(init=False)
    """Its kinds of timers, and that of its TTL tables if it has any."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "all_timers", (*self.timers, EXPIRY) if self.ttl_tables else self.timers)
        object.__setattr__(self, "timer_table", Table(f"{self.name}-timers", ScheduledTimer))
        object.__setattr__(self, "pending", Table(f"{self.name}-effects", PendingSideEffect))
        # Written by `orders dead-letters redrive` alone.
        redrive_topic = Topic(
            f"{self.name}-effects", RejectedSideEffect, lambda r: r.key, "operator", FORTNIGHT, pinned=True
        )
        object.__setattr__(self, "redrive_topic", redrive_topic)
        if self.side_effects:
            object.__setattr__(self, "inputs", (*self.inputs, Input(redrive_topic, self._redrive)))
        expiring = tuple(t for ttl in self.ttl_tables for t in ttl.table.tables)
        for table in (*self.tables, *expiring):
            if not table.name.startswith(f"{self.name}-"):
                raise ValueError(f"table {table.name!r} of service {self.name!r} must be named '{self.name}-…'")
            if table.expiring and table not in expiring:
                raise ValueError(f"table {table.name!r} of service {self.name!r} expires: declare it in ttl_tables")
        _check_timers(self)

    @property
    def all_tables(self) -> tuple[Table[Any], ...]:
        """Its tables, and those of its timers and side effects if it has any."""
        expiring = [table for ttl in self.ttl_tables for table in ttl.table.tables]
        timers = (self.timer_table,) if self.all_timers else ()
        pending = (self.pending,) if self.side_effects else ()
        return (*self.tables, *expiring, *timers, *pending)

    @property
    def all_events(self) -> tuple[str, ...]:
        """Its events, and that of the runtime if it has side effects."""
        return (*self.events, SUPPRESSED) if self.side_effects else self.events

    def timer_of(self, row_key: str) -> Timer | None:
        """The kind of a timer, by the key of its row."""
        return max(
            (timer for timer in self.all_timers if row_key.startswith(timer.row_key(""))),
            key=lambda timer: len(timer.row_key("")),
            default=None,
        )

    def on_timer(self, row_key: str, ctx: Context) -> None:
        """Processes a due timer. Raises `LookupError` for a kind that the service does not have."""
        timer = self.timer_of(row_key)
        if timer is None:
            raise LookupError(f"service {self.name!r} has no timer with rows such as {row_key!r}")
        if timer is EXPIRY:
            for ttl in self.ttl_tables:
                ttl.expire(row_key, ctx)
        else:
            timer.on_due(timer.key(row_key), ctx)

    @property
    def topics(self) -> tuple[Topic[Any], ...]:
        """The topics it consumes, each once."""
        return tuple(dict.fromkeys(i.topic for i in self.inputs))

    def _redrive(self, rejected: RejectedSideEffect, ctx: Context) -> None:
        effect = next((e for e in self.side_effects if e.name == rejected.effect), None)
        if effect is None:
            raise ValueError(f"service {self.name!r} has no side effect {rejected.effect!r}")
        ctx.enqueue(effect, rejected.key, effect.model.from_json(rejected.payload))


def _check_timers(service: Service) -> None:
    """Raises `ValueError` if two kinds of timers have one name, or the rows of one may be taken for the other's."""
    timers: Iterable[Timer] = service.all_timers
    for what, values in (("name", [t.name for t in timers]), ("prefix", [t.row_key("") for t in timers])):
        if twice := {value for value in values if values.count(value) > 1}:
            raise ValueError(f"service {service.name!r} has two timers with the {what} {min(twice)!r}")
