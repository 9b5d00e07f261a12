"""State and context of processors: what a processor reads and writes besides its message."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from runtime.model.records import Header
from schemas.topics import Topic
from schemas.wire import Message

if TYPE_CHECKING:
    from runtime.model.service import SideEffect
    from runtime.model.timers import Timer

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True, eq=False)
class Table(Generic[M]):
    """Key-value state of a service, partitioned like its inputs, backed by a compacted changelog.

    Arguments:
        name: unique in the ecosystem; begins with the name of the service.
        model: model of the rows.
        expiring: set by `runtime.state.ttl_table` alone.

    >>> from schemas.messages import StockLevel
    >>> Table("inventory-stock", StockLevel).changelog
    'inventory-stock-changelog'
    """

    name: str
    model: type[M]
    expiring: bool = False
    """Whether it belongs to a TTL table, and is declared with it."""
    changelog: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "changelog", f"{self.name}-changelog")


class ScheduledTimer(Message):
    """Row of the timer table of a service: when the timer of a key is due.

    `replayed`, `trace`: headers that the timer inherits from the message which set it: if that was replayed, and its
    trace.
    """

    at: datetime
    replayed: dict[str, str] | None = None
    trace: dict[str, str] | None = None


class PendingSideEffect(Message):
    """Row of the side effect table of a service: the side effect of a key that is not acknowledged yet."""

    effect: str
    payload: bytes
    since: datetime | None = None
    """When the side effect was enqueued, UTC. Rows of earlier versions do not have it."""
    trace: dict[str, str] | None = None
    """The trace of the message that enqueued it."""


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

    >>> from runtime.model.service import Input, Service
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

    @property
    def inherited(self) -> tuple[Header, ...]:
        """Headers that outputs inherit from a message: marks of a replay, and its trace. Not for processors to read."""

    def acting_for(self, inherited: tuple[Header, ...]) -> AbstractContextManager[None]:
        """Within it, outputs inherit `inherited`: the present message completes what an earlier one began."""

    @property
    def trace(self) -> dict[str, str] | None:
        """Trace of the present message, for a row that a later message completes. `None` without traces."""

    def continuing(self, trace: dict[str, str] | None) -> AbstractContextManager[None]:
        """Within it, outputs belong to `trace`, as a row has kept it; with `None`, to that of the present message."""

    def get(self, table: Table[M], key: str) -> M | None: ...

    def put(self, table: Table[M], key: str, value: M) -> None: ...

    def delete(self, table: Table[M], key: str) -> None: ...

    def send(self, topic: Topic[M], value: M) -> None:
        """Produces `value` to `topic`, under the key that the topic derives from it."""

    def count(self, event: str) -> None:
        """Counts an event, once it is committed, in `faust_orders_service_events_total` by service and event."""

    def observe(self, stage: str, seconds: float) -> None:
        """Observes how long an order took to a stage, once it is committed.

        In `faust_orders_stage_duration_seconds`, by service and stage. Below 0, where clocks differ, it counts as 0.
        A replayed message is not observed: it would seem to have taken since the original.

        Arguments:
            stage: a fixed name: not of an order.
            seconds: the duration.
        """

    def schedule(self, timer: "Timer", key: str, at: datetime | None) -> None:
        """Sets a timer of `key`: its `on_due` is called at `at` or soon after.

        A key has one timer of each kind. A later call replaces it, `None` cancels it.
        """

    def scheduled(self, timer: "Timer", after: str = "", limit: int = 100) -> list[str]:
        """The keys with a timer of this kind, in order: up to `limit` of those behind `after`.

        Only of the partition of the context.
        """

    def enqueue(self, effect: "SideEffect[M]", key: str, payload: M) -> None:
        """Enqueues a side effect: performed after the commit, at least once.

        A key has one side effect at a time. A later call replaces one that is not performed yet. While a replayed
        message is processed nothing is enqueued: the original has had its side effects.
        """


class DeadLetteringContext(Context, Protocol):
    """The context of the loop, which can also dead-letter a side effect (`runtime.loop.overlay.ProcessorContext`)."""

    def dead_letter(self, key: str, pending: PendingSideEffect, reason: str) -> None: ...
