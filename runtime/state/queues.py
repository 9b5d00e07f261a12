"""First-in, first-out queues by key in a table. An item costs the same however many wait.

One row for the whole queue would be read and written with each item: N items would cost N² bytes, and in the end exceed
what the broker accepts. So each item is a numbered row, and a small row holds the range of numbers. A service empties a
queue in slices, one per timer, so that no queue makes a batch large.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from runtime.model.inheritance import NOTHING, from_row, to_row
from runtime.model.service import Context, Table
from schemas.wire import Message

M = TypeVar("M", bound=Message)

SLICE = 100
"""Items that a timer processes. A batch may have a thousand timers, and an item may be an e-mail of a kilobyte."""


class QueueRow(Message, Generic[M]):
    """A row: an item with its id; or the number of an id's item; or the range of numbers, `next` not included.

    `replayed`, `trace`: headers that an item inherits from the message which brought it.
    """

    item: M | None = None
    id: str | None = None
    number: int | None = None
    first: int | None = None
    next: int | None = None
    replayed: dict[str, str] | None = None
    trace: dict[str, str] | None = None


class Queue(Generic[M]):
    """Queues by key in one table, which its service lists.

    An item whose id waits already is not added again. Where two workers write at once (a zombie, at least once), a
    number may be without an item, and an item may occur twice.
    """

    def __init__(self, name: str, model: type[M]) -> None:
        row: Any = QueueRow
        self.table: Table[QueueRow[M]] = Table(name, row[model])

    def numbers(self, ctx: Context, key: str) -> range:
        """The numbers of all items of a key; empty if there are none."""
        span = ctx.get(self.table, _span(key))
        return range(span.first or 0, span.next or 0) if span is not None else range(0)

    def append(self, ctx: Context, key: str, id_: str, item: M) -> bool:
        """Adds an item at the end. Returns False, without adding it, if one of this id waits already."""
        if self.find(ctx, key, id_) is not None:
            return False
        numbers = self.numbers(ctx, key)
        number = numbers.stop
        ctx.put(self.table, _item(key, number), QueueRow(item=item, id=id_, **to_row(ctx.inherited)))
        ctx.put(self.table, _span(key), QueueRow(first=numbers.start, next=number + 1))
        ctx.put(self.table, _id(key, id_), QueueRow(number=number))
        return True

    def acting_for(self, ctx: Context, key: str, number: int) -> AbstractContextManager[None]:
        """Within it, outputs of the context inherit what the message passed on that brought the item."""
        row = ctx.get(self.table, _item(key, number))
        return ctx.acting_for(from_row(row) if row is not None else NOTHING)

    def get(self, ctx: Context, key: str, number: int) -> M | None:
        """The item of a number."""
        row = ctx.get(self.table, _item(key, number))
        return row.item if row is not None else None

    def find(self, ctx: Context, key: str, id_: str) -> tuple[int, M] | None:
        """The item of an id, and its number."""
        found = ctx.get(self.table, _id(key, id_))
        if found is None or found.number is None or found.number not in self.numbers(ctx, key):
            return None
        row = ctx.get(self.table, _item(key, found.number))
        return (found.number, row.item) if row is not None and row.id == id_ and row.item is not None else None

    def replace(self, ctx: Context, key: str, number: int, item: M) -> None:
        """Replaces a waiting item."""
        row = ctx.get(self.table, _item(key, number))
        if row is not None:
            ctx.put(self.table, _item(key, number), row.model_copy(update={"item": item}))

    def remove(self, ctx: Context, key: str, number: int) -> None:
        """Removes an item. Its number stays in the range until `advance` passes it."""
        row = ctx.get(self.table, _item(key, number))
        if row is None:
            return
        ctx.delete(self.table, _item(key, number))
        if row.id is not None:
            found = ctx.get(self.table, _id(key, row.id))
            if found is not None and found.number == number:
                ctx.delete(self.table, _id(key, row.id))

    def advance(self, ctx: Context, key: str, upto: int) -> None:
        """Starts the range behind removed items, at number `upto` at most."""
        numbers = self.numbers(ctx, key)
        first = numbers.start
        while first < min(upto, numbers.stop) and ctx.get(self.table, _item(key, first)) is None:
            first += 1
        if first == numbers.stop:
            ctx.delete(self.table, _span(key))
        elif first != numbers.start:
            ctx.put(self.table, _span(key), QueueRow(first=first, next=numbers.stop))

    def process_slice(self, ctx: Context, key: str, begin: int, process: Callable[[M], None]) -> int | None:
        """Processes and removes up to `SLICE` items from number `begin` on, each as the message that brought it.

        Returns the number at which the next slice begins; `None` if there is none.
        """
        numbers = self.numbers(ctx, key)
        begin = max(begin, numbers.start)
        end = min(begin + SLICE, numbers.stop)
        for number in range(begin, end):
            item = self.get(ctx, key, number)
            if item is not None:
                with self.acting_for(ctx, key, number):
                    process(item)
            self.remove(ctx, key, number)
        self.advance(ctx, key, end)
        return end if end < numbers.stop else None


def _span(key: str) -> str:
    return f"span/{key}"


def _item(key: str, number: int) -> str:
    return f"item/{number}/{key}"


def _id(key: str, id_: str) -> str:
    return f"id/{len(key)}/{key}/{id_}"
