"""What a service is: processors with their topics and tables. Pure: nothing here does I/O or reads a clock."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from schemas.topics import FORTNIGHT, Topic
from schemas.wire import Message

M = TypeVar("M", bound=Message)

TIMERS_CHANGELOG = "-timers-changelog"
"""What the changelogs of all tables of timers end in."""

EFFECTS_CHANGELOG = "-effects-changelog"
"""What the changelogs of all tables of effects end in."""


@dataclass(frozen=True, slots=True, eq=False)
class Table(Generic[M]):
    """State of a service, one row a key, partitioned like the topics the service consumes.

    `name` is unique in the ecosystem and starts with the service's; the changelog takes its name from it.
    """

    name: str
    model: type[M]

    @property
    def changelog(self) -> str:
        return f"{self.name}-changelog"


class ScheduledTimer(Message):
    """Row of a service's table of timers: when the key it stands under asked to be woken."""

    at: datetime


class PendingSideEffect(Message):
    """Row of a service's table of effects: what is to be done for the key it stands under, and has not been yet."""

    effect: str
    payload: bytes
    since: datetime | None = None
    """When it was asked for, UTC. Rows of earlier versions do not have it."""


class RejectedSideEffect(Message):
    """An effect that was refused for good, as its dead letter holds it. Read again, it asks for the effect anew."""

    key: str
    effect: str
    payload: bytes


class Context(Protocol):
    """What a processor sees besides its message: the state of the message's partition, and a place for its decisions.

    Reads see what was decided before, in the same batch too. Writes and messages take effect together, once, when the
    batch is committed; if the processor raises, none of them does.
    """

    @property
    def time(self) -> datetime:
        """When the message was written to its topic (a fused one: when the batch was taken). UTC.

        One that came by an internal topic has the time of what it follows from, however long it was on its way.
        """

    @property
    def now(self) -> datetime:
        """When the batch was taken. UTC. The only clock a processor may read."""

    def get(self, table: Table[M], key: str) -> M | None: ...

    def put(self, table: Table[M], key: str, value: M) -> None: ...

    def delete(self, table: Table[M], key: str) -> None: ...

    def send(self, topic: Topic[M], value: M) -> None:
        """Announces `value` under the topic's key for it."""

    def count(self, event: str) -> None:
        """Counts what is worth knowing, once it is committed: metric `service_events_total`, by service and event."""

    def schedule(self, key: str, at: datetime | None) -> None:
        """Asks that the service's `on_timer` be called for `key` in this partition at `at` or soon after.

        One wish a key: a later one replaces it, `None` withdraws it.
        """

    def enqueue(self, effect: "SideEffect[M]", key: str, payload: M) -> None:
        """Asks that `effect` be done once this is committed, at least once, whatever happens to the worker.

        One at a time under a key: a later one replaces what has not been done.
        """


Processor = Callable[[M, Context], None]
OnKey = Callable[[str, Context], None]


@dataclass(frozen=True, slots=True, eq=False)
class SideEffect(Generic[M]):
    """Something a service does outside Kafka: a letter, a row in a database.

    `perform` is given the key and the payload. It may be called again for what it has done already, and is to tell the
    other side by the key. It raises `SideEffectRejected`; `Outage` if others would fare the same; or anything else to
    be tried again. How it ended is decided like a message, with `on_done`, or with `on_rejected` and the reason, which
    is also that it could not be done within `SIDE_EFFECT_TIMEOUT_S`.

    `destination` names for a payload what may fail by itself: the domain of an address, say. Where several of a
    destination have failed in a row, the others of it wait until one of them succeeds. Without it each key is one.

    `concurrency` is how many of it a worker does at a time.
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
    """One topic a service consumes, and the processor of its messages.

    `on_tombstone` is called with the key of a message without value. A tombstone nobody takes is a dead letter.
    """

    topic: Topic[M]
    processor: Processor[M]
    on_tombstone: OnKey | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """A service: what it consumes, holds and produces. Which services share a worker is decided by deployment."""

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
        # Nobody writes to it but who redrives its dead letters.
        redrive_topic = Topic(
            f"{self.name}-effects", RejectedSideEffect, lambda r: r.key, "operator", FORTNIGHT, pinned=True
        )
        object.__setattr__(self, "redrive_topic", redrive_topic)
        if self.side_effects:
            object.__setattr__(self, "inputs", (*self.inputs, Input(redrive_topic, self._redo)))
        for table in self.tables:
            if not table.name.startswith(f"{self.name}-"):
                raise ValueError(f"table {table.name!r} of service {self.name!r} must be named '{self.name}-…'")

    @property
    def all_tables(self) -> tuple[Table[Any], ...]:
        """Its tables, and those of its timers and effects if it uses any."""
        timers = (self.timers,) if self.on_timer else ()
        pending = (self.pending,) if self.side_effects else ()
        return (*self.tables, *timers, *pending)

    @property
    def topics(self) -> tuple[Topic[Any], ...]:
        """Every topic it consumes, each once."""
        return tuple(dict.fromkeys(i.topic for i in self.inputs))

    def _redo(self, refused: RejectedSideEffect, ctx: Context) -> None:
        effect = next((e for e in self.side_effects if e.name == refused.effect), None)
        if effect is None:
            raise ValueError(f"service {self.name!r} has no effect {refused.effect!r}")
        ctx.enqueue(effect, refused.key, effect.model.from_json(refused.payload))
