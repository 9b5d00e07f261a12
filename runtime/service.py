"""What a service is: processors with their topics and tables. Pure: nothing here does I/O or reads a clock."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from schemas.topics import Topic
from schemas.wire import Message

M = TypeVar("M", bound=Message)

TIMERS_CHANGELOG = "-timers-changelog"
"""What the changelogs of all tables of timers end in."""


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


class Wake(Message):
    """Row of a service's table of timers: when the key it stands under asked to be woken."""

    at: datetime


class Context(Protocol):
    """What a processor sees besides its message: the state of the message's partition, and a place for its decisions.

    Reads see what was decided before, in the same batch too. Writes and messages take effect together, once, when the
    batch is committed; if the processor raises, none of them does.
    """

    @property
    def time(self) -> datetime:
        """When the message was written to its topic (a fused one: when the batch was taken). UTC."""

    @property
    def now(self) -> datetime:
        """When the batch was taken. UTC. The only clock a processor may read."""

    def get(self, table: Table[M], key: str) -> M | None: ...

    def put(self, table: Table[M], key: str, value: M) -> None: ...

    def delete(self, table: Table[M], key: str) -> None: ...

    def send(self, topic: Topic[M], value: M) -> None:
        """Announces `value` under the topic's key for it."""

    def wake(self, key: str, at: datetime | None) -> None:
        """Asks that the service's `on_wake` be called for `key` in this partition at `at` or soon after.

        One wish a key: a later one replaces it, `None` withdraws it.
        """


Processor = Callable[[M, Context], None]
OnKey = Callable[[str, Context], None]


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
    on_wake: OnKey | None = None
    timers: Table[Wake] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "timers", Table(f"{self.name}-timers", Wake))
        for table in self.tables:
            if not table.name.startswith(f"{self.name}-"):
                raise ValueError(f"table {table.name!r} of service {self.name!r} must be named '{self.name}-…'")

    @property
    def all_tables(self) -> tuple[Table[Any], ...]:
        """Its tables, and that of its timers if it uses any."""
        return (*self.tables, self.timers) if self.on_wake else self.tables

    @property
    def topics(self) -> tuple[Topic[Any], ...]:
        """Every topic it consumes, each once."""
        return tuple(dict.fromkeys(i.topic for i in self.inputs))
