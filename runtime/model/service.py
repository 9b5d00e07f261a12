"""The declaration of a service: processors with their topics and tables. Pure: no I/O, no clock.

A service counts what is in stock, and sets a timer that forgets it:

>>> from datetime import timedelta
>>> from runtime.testing import TopologyTestDriver
>>> from schemas.messages import StockLevel
>>> from schemas.topics import WAREHOUSE_INVENTORY
>>> LEVELS = Table("counter-levels", StockLevel)
>>> def on_level(level: StockLevel, ctx: Context) -> None:
...     ctx.put(LEVELS, level.product, level)
...     ctx.schedule(level.product, ctx.now + timedelta(hours=1))
>>> def on_timer(product: str, ctx: Context) -> None:
...     ctx.delete(LEVELS, product)
>>> counter = Service("counter", (Input(WAREHOUSE_INVENTORY, on_level),), (), (LEVELS,), on_timer)
>>> driver = TopologyTestDriver(counter)
>>> driver.send(WAREHOUSE_INVENTORY, StockLevel(product="mug", count=3))
>>> driver.row(LEVELS, "mug")
StockLevel(product='mug', count=3)
>>> driver.advance(timedelta(hours=1))
>>> driver.row(LEVELS, "mug") is None
True
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from schemas.topics import FORTNIGHT, Topic
from schemas.wire import Message

M = TypeVar("M", bound=Message)

TIMERS_CHANGELOG = "-timers-changelog"
"""Suffix of the changelogs of all timer tables."""

EFFECTS_CHANGELOG = "-effects-changelog"
"""Suffix of the changelogs of all tables of side effects."""


@dataclass(frozen=True, slots=True, eq=False)
class Table(Generic[M]):
    """Key-value state of a service, partitioned like its inputs, backed by a compacted changelog.

    Arguments:
        name: unique in the ecosystem; begins with the name of the service.
        model: model of the rows.

    >>> from schemas.messages import StockLevel
    >>> Table("inventory-stock", StockLevel).changelog
    'inventory-stock-changelog'
    """

    name: str
    model: type[M]

    @property
    def changelog(self) -> str:
        return f"{self.name}-changelog"


class ScheduledTimer(Message):
    """Row of the timer table of a service: when the timer of a key is due."""

    at: datetime


class PendingSideEffect(Message):
    """Row of the side effect table of a service: the side effect of a key that is not acknowledged yet."""

    effect: str
    payload: bytes
    since: datetime | None = None
    """When the side effect was enqueued, UTC. Rows of earlier versions do not have it."""


class RejectedSideEffect(Message):
    """A side effect that was rejected permanently: the payload of its dead letter. Redriven, it is enqueued again."""

    key: str
    effect: str
    payload: bytes


class Context(Protocol):
    """What a processor reads and writes besides its message: state, output records, timers, side effects.

    Reads see earlier changes of the same batch. All changes take effect together when the batch is committed; if the
    processor raises, none of them does.

    A processor is a function of a message and a context, hence tested without a broker:

    >>> from runtime.testing import TopologyTestDriver
    >>> from schemas.messages import StockLevel
    >>> from schemas.topics import WAREHOUSE_INVENTORY
    >>> LEVELS = Table("doubler-levels", StockLevel)
    >>> def double(level: StockLevel, ctx: Context) -> None:
    ...     before = ctx.get(LEVELS, level.product)
    ...     ctx.put(LEVELS, level.product, level.model_copy(update={"count": before.count * 2}) if before else level)
    >>> driver = TopologyTestDriver(Service("doubler", (Input(WAREHOUSE_INVENTORY, double),), (), (LEVELS,)))
    >>> driver.send(WAREHOUSE_INVENTORY, StockLevel(product="mug", count=3), StockLevel(product="mug", count=0))
    >>> driver.row(LEVELS, "mug").count
    6
    """

    @property
    def time(self) -> datetime:
        """Event time of the message, UTC: when it was written to its topic, or polled, if it is fused.

        A repartitioned message keeps the event time of its source.
        """

    @property
    def now(self) -> datetime:
        """When the batch was polled, UTC. The only clock that a processor may read."""

    def get(self, table: Table[M], key: str) -> M | None: ...

    def put(self, table: Table[M], key: str, value: M) -> None: ...

    def delete(self, table: Table[M], key: str) -> None: ...

    def send(self, topic: Topic[M], value: M) -> None:
        """Produces `value` to `topic`, under the key that the topic derives from it."""

    def count(self, event: str) -> None:
        """Counts an event, once it is committed, in `faust_orders_service_events_total` by service and event."""

    def schedule(self, key: str, at: datetime | None) -> None:
        """Sets the timer of `key`: `on_timer` of the service is called for it at `at` or soon after.

        A key has one timer. A later call replaces it, `None` cancels it.
        """

    def enqueue(self, effect: "SideEffect[M]", key: str, payload: M) -> None:
        """Enqueues a side effect: performed after the commit, at least once.

        A key has one side effect at a time. A later call replaces one that is not performed yet.
        """


Processor = Callable[[M, Context], None]
OnKey = Callable[[str, Context], None]


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
    """

    name: str
    model: type[M]
    perform: Callable[[str, M], Awaitable[None]]
    on_done: Processor[M] | None = None
    on_rejected: Callable[[M, str, Context], None] | None = None
    destination: Callable[[M], str] | None = None
    concurrency: int = 16


@dataclass(frozen=True, slots=True)
class Input(Generic[M]):
    """A topic that a service consumes, and the processor of its messages.

    Arguments:
        topic: the topic.
        processor: called with each message and a `Context`.
        on_tombstone: called with the key of a message without value. Without it a tombstone is dead-lettered.
    """

    topic: Topic[M]
    processor: Processor[M]
    on_tombstone: OnKey | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """A service: its inputs, outputs and state. Which services share a worker is a matter of deployment.

    Arguments:
        name: unique in the ecosystem; its tables begin with it.
        inputs: topics and their processors.
        outputs: topics that processors may send to.
        tables: state.
        on_timer: called with the key of a due timer.
        side_effects: what processors may enqueue.

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
    on_timer: OnKey | None = None
    side_effects: tuple[SideEffect[Any], ...] = ()
    timers: Table[ScheduledTimer] = field(init=False)
    pending: Table[PendingSideEffect] = field(init=False)
    redrive_topic: Topic[RejectedSideEffect] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "timers", Table(f"{self.name}-timers", ScheduledTimer))
        object.__setattr__(self, "pending", Table(f"{self.name}-effects", PendingSideEffect))
        # Written by `orders dead-letters redrive` alone.
        redrive_topic = Topic(
            f"{self.name}-effects", RejectedSideEffect, lambda r: r.key, "operator", FORTNIGHT, pinned=True
        )
        object.__setattr__(self, "redrive_topic", redrive_topic)
        if self.side_effects:
            object.__setattr__(self, "inputs", (*self.inputs, Input(redrive_topic, self._redrive)))
        for table in self.tables:
            if not table.name.startswith(f"{self.name}-"):
                raise ValueError(f"table {table.name!r} of service {self.name!r} must be named '{self.name}-…'")

    @property
    def all_tables(self) -> tuple[Table[Any], ...]:
        """Its tables, and those of its timers and side effects if it has any."""
        timers = (self.timers,) if self.on_timer else ()
        pending = (self.pending,) if self.side_effects else ()
        return (*self.tables, *timers, *pending)

    @property
    def topics(self) -> tuple[Topic[Any], ...]:
        """The topics it consumes, each once."""
        return tuple(dict.fromkeys(i.topic for i in self.inputs))

    def _redrive(self, rejected: RejectedSideEffect, ctx: Context) -> None:
        effect = next((e for e in self.side_effects if e.name == rejected.effect), None)
        if effect is None:
            raise ValueError(f"service {self.name!r} has no side effect {rejected.effect!r}")
        ctx.enqueue(effect, rejected.key, effect.model.from_json(rejected.payload))
