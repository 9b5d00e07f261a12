"""Tables whose rows expire, however many there are.

A timer per row would cost a second row, and memory for days. So the rows of an hour form a chain, each naming the one
before it, and only the hour has a row and a timer. Expiry walks down the chain.
"""

from datetime import timedelta
from typing import Generic, TypeVar

from runtime.model.service import Context, Table
from schemas.wire import Message

KEPT = timedelta(days=7)
"""Time to live. As long as `order-validations` keeps verdicts: after that their first verdict is gone there as well."""

STEP = 500
"""Rows that expire in one batch: an hour with a million of them must not delay a commit."""

_HOUR = timedelta(hours=1).total_seconds()


class ExpiringRow(Message):
    """A row that expires. `before` is the key of the row added before it in the same hour."""

    before: str | None = None


class Hour(Message):
    """The head of an hour's chain: the key of the row added last."""

    last: str


R = TypeVar("R", bound=ExpiringRow)


class TtlTable(Generic[R]):
    """A table whose rows expire `KEPT` after they were added, give or take an hour.

    The service lists both `tables`, and calls `forget` from its `on_timer`.
    """

    def __init__(self, name: str, model: type[R]) -> None:
        self.rows = Table(name, model)
        self.hours = Table(f"{name}-hours", Hour)

    @property
    def tables(self) -> tuple[Table[R], Table[Hour]]:
        return self.rows, self.hours

    def get(self, ctx: Context, key: str) -> R | None:
        return ctx.get(self.rows, key)

    def remember(self, ctx: Context, key: str, row: R) -> R:
        """Adds `row`. Once per key: a row in two chains would break one of them."""
        number = int(ctx.now.timestamp() // _HOUR)
        hour = ctx.get(self.hours, str(number))
        if hour is None:
            ctx.schedule(str(number), ctx.now + KEPT + timedelta(hours=1))
        else:
            row = row.model_copy(update={"before": hour.last})
        ctx.put(self.rows, key, row)
        ctx.put(self.hours, str(number), Hour(last=key))
        return row

    def forget(self, hour: str, ctx: Context) -> list[tuple[str, R]]:
        """Deletes up to `STEP` expired rows of an hour, sets a timer for the others, and returns the deleted rows."""
        forgotten: list[tuple[str, R]] = []
        end = ctx.get(self.hours, hour)
        key = end.last if end else None
        while key is not None and len(forgotten) < STEP:
            row = ctx.get(self.rows, key)
            if row is not None:
                ctx.delete(self.rows, key)
                forgotten.append((key, row))
            # A chain breaks only where two workers write at once (at least once). Rows beyond the break stay.
            key = row.before if row is not None else None
        if key is None:
            ctx.delete(self.hours, hour)
        else:
            ctx.put(self.hours, hour, Hour(last=key))
            ctx.schedule(hour, ctx.now)
        return forgotten


class Deduplication:
    """Deduplicates messages by an id: those of an outbox, say, which may be written more than once.

    The service lists `tables`, and calls `forget` from its `on_timer`.
    """

    def __init__(self, name: str) -> None:
        self._memory = TtlTable(name, ExpiringRow)

    @property
    def tables(self) -> tuple[Table[ExpiringRow], Table[Hour]]:
        return self._memory.tables

    def first(self, ctx: Context, event_id: str) -> bool:
        """Whether `event_id` comes for the first time within `KEPT`, in the partition of the context."""
        if self._memory.get(ctx, event_id) is not None:
            return False
        self._memory.remember(ctx, event_id, ExpiringRow())
        return True

    def forget(self, hour: str, ctx: Context) -> None:
        """Forgets what was seen in an hour whose time has come."""
        self._memory.forget(hour, ctx)
