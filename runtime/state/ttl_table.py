"""Tables whose rows expire, at the cost of one timer an hour.

A timer per row would cost a second row, and memory for days. So the rows of an hour form a chain, each with the key of
the row before it, and an hour has one row and one timer. Expiry follows the chain.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Generic, TypeVar

from runtime.model.context import Context, Table
from runtime.model.timers import EXPIRY
from schemas.wire import Message

TTL = timedelta(days=7)
"""Time to live of a row: the retention of `order-validations`, after which the topic has no verdicts either."""

MAX_EXPIRED = 500
"""Rows that expire in one batch: an hour with a million rows must not delay a commit."""

_HOUR = timedelta(hours=1).total_seconds()


class ExpiringRow(Message):
    """A row that expires. `before` is the key of the row added before it in the same hour."""

    before: str | None = None


class ChainHead(Message):
    """The head of the chain of an hour: the key of the row added last."""

    last: str


R = TypeVar("R", bound=ExpiringRow)


class TtlTable(Generic[R]):
    """A table whose rows expire `TTL` after they were added, up to an hour later.

    The service declares it among its `ttl_tables`, and the runtime calls `expire`.

    >>> from runtime.model.service import Expiring, Input, Service
    >>> from runtime.testing import TopologyTestDriver
    >>> from schemas.messages import StockLevel
    >>> from schemas.topics import WAREHOUSE_INVENTORY
    >>> class SeenLevel(ExpiringRow):
    ...     count: int
    >>> SEEN = TtlTable("recorder-seen", SeenLevel)
    >>> def on_level(level: StockLevel, ctx: Context) -> None:
    ...     if SEEN.get(ctx, level.product) is None:
    ...         SEEN.add(ctx, level.product, SeenLevel(count=level.count))
    >>> inputs = (Input(WAREHOUSE_INVENTORY, on_level),)
    >>> recorder = Service("recorder", inputs, (), ttl_tables=(Expiring(SEEN),))
    >>> driver = TopologyTestDriver(recorder)
    >>> driver.send(WAREHOUSE_INVENTORY, StockLevel(product="mug", count=3))
    >>> driver.row(SEEN.rows, "mug").count
    3
    >>> driver.advance(TTL + timedelta(hours=1))
    >>> driver.row(SEEN.rows, "mug") is None
    True
    """

    def __init__(self, name: str, model: type[R]) -> None:
        self.rows = Table(name, model, expiring=True)
        self.hours = Table(f"{name}-hours", ChainHead, expiring=True)

    @property
    def tables(self) -> tuple[Table[R], Table[ChainHead]]:
        return self.rows, self.hours

    def get(self, ctx: Context, key: str) -> R | None:
        return ctx.get(self.rows, key)

    def add(self, ctx: Context, key: str, row: R) -> R:
        """Adds a row, and returns it as stored. Once per key: a row in two chains would break one of them."""
        hour = str(int(ctx.now.timestamp() // _HOUR))
        head = ctx.get(self.hours, hour)
        if head is None:
            ctx.schedule(EXPIRY, hour, ctx.now + TTL + timedelta(hours=1))
        else:
            row = row.model_copy(update={"before": head.last})
        ctx.put(self.rows, key, row)
        ctx.put(self.hours, hour, ChainHead(last=key))
        return row

    def get_or_add(self, ctx: Context, key: str, make: Callable[[], R]) -> R:
        """Reads a row; if there is none, adds the one that `make` returns. So work is done once per key and `TTL`."""
        row = self.get(ctx, key)
        return self.add(ctx, key, make()) if row is None else row

    def expire(self, hour: str, ctx: Context) -> list[tuple[str, R]]:
        """Deletes up to `MAX_EXPIRED` rows of an hour, and sets a timer for the others. Returns the deleted rows."""
        expired: list[tuple[str, R]] = []
        head = ctx.get(self.hours, hour)
        key = head.last if head else None
        while key is not None and len(expired) < MAX_EXPIRED:
            row = ctx.get(self.rows, key)
            if row is not None:
                ctx.delete(self.rows, key)
                expired.append((key, row))
            # A chain breaks only where two workers write at once (at least once). Rows beyond the break stay.
            key = row.before if row is not None else None
        if key is None:
            ctx.delete(self.hours, hour)
        else:
            ctx.put(self.hours, hour, ChainHead(last=key))
            ctx.schedule(EXPIRY, hour, ctx.now)
        return expired


class Deduplication(TtlTable[ExpiringRow]):
    """Deduplicates messages by an id: messages of an outbox may be written more than once."""

    def __init__(self, name: str) -> None:
        super().__init__(name, ExpiringRow)

    def is_new(self, ctx: Context, event_id: str) -> bool:
        """Whether `event_id` occurs for the first time within `TTL`, in the partition of the context. Records it."""
        if self.get(ctx, event_id) is not None:
            return False
        self.add(ctx, event_id, ExpiringRow())
        return True
