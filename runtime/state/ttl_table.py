"""Rows that are kept for a while and then forgotten, however many there are.

A timer for each would cost a second row and a place in the calendar for days. So the rows of one hour are a chain, each
naming the one remembered before it, and only the hour has a row and a timer: forgetting walks down the chain.
"""

from datetime import timedelta
from typing import Generic, TypeVar

from runtime.model.service import Context, Table
from schemas.wire import Message

KEPT = timedelta(days=7)
"""As long as verdicts stay on `order-validations`: after that nobody finds the earlier one there either."""

STEP = 500
"""Rows forgotten at a time: an hour with a million of them must not hold up a batch."""

_HOUR = timedelta(hours=1).total_seconds()


class ExpiringRow(Message):
    """A row that is kept for a while. `before` is the key of the one remembered before it in the same hour."""

    before: str | None = None


class Hour(Message):
    """The end of an hour's chain: the key of the row remembered last."""

    last: str


R = TypeVar("R", bound=ExpiringRow)


class TtlTable(Generic[R]):
    """A table whose rows are forgotten `KEPT` after they were remembered, and within an hour of that.

    Its service lists both `tables`, and calls `forget` when woken.
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
        """Keeps `row` from now on. Once a key: a row in two chains would cut one of them short."""
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
        """Deletes rows of an hour whose time has come, asks to be woken for the rest, returns what was deleted."""
        forgotten: list[tuple[str, R]] = []
        end = ctx.get(self.hours, hour)
        key = end.last if end else None
        while key is not None and len(forgotten) < STEP:
            row = ctx.get(self.rows, key)
            if row is not None:
                ctx.delete(self.rows, key)
                forgotten.append((key, row))
            # A chain only breaks where two workers may write at once (at least once): what lies beyond stays.
            key = row.before if row is not None else None
        if key is None:
            ctx.delete(self.hours, hour)
        else:
            ctx.put(self.hours, hour, Hour(last=key))
            ctx.schedule(hour, ctx.now)
        return forgotten


class Deduplication:
    """Which messages a service has seen already: those of an outbox, say, which may be written more than once.

    Its service lists `tables`, and calls `forget` when woken.
    """

    def __init__(self, name: str) -> None:
        self._memory = TtlTable(name, ExpiringRow)

    @property
    def tables(self) -> tuple[Table[ExpiringRow], Table[Hour]]:
        return self._memory.tables

    def first(self, ctx: Context, event_id: str) -> bool:
        """Whether `event_id` is seen for the first time within `KEPT`, under this key's partition."""
        if self._memory.get(ctx, event_id) is not None:
            return False
        self._memory.remember(ctx, event_id, ExpiringRow())
        return True

    def forget(self, hour: str, ctx: Context) -> None:
        """Forgets what was seen in an hour whose time has come."""
        self._memory.forget(hour, ctx)
