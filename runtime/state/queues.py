"""Queues in a table: what waits under a key, first in first out, at the same cost for each however many wait.

One row for all that waits under a key would be read and written whole with each: N messages would cost N² bytes, and
at some size the broker takes it no more. So each item is a row, numbered, and one small row says from where to where.
Whoever works a queue off does so in slices, by one wake each: no queue makes one batch large.
"""

from typing import Any, Generic, TypeVar

from runtime.model.service import Context, Table
from schemas.wire import Message

M = TypeVar("M", bound=Message)

SLICE = 100
"""Items worked off by one wake: a batch may have a thousand of these, and each item a letter of a kilobyte."""


class Slot(Message, Generic[M]):
    """A row of a queue: an item and its id; or the number of the item of an id; or the first number and the next."""

    item: M | None = None
    id: str | None = None
    number: int | None = None
    first: int | None = None
    next: int | None = None


class Queue(Generic[M]):
    """Queues by key, all in one table, which its service lists.

    Items have ids: one that waits already is not added again. Where rows of a batch may become durable in part (at
    least once), numbers may be left without an item, and an item may come twice; none is lost.
    """

    def __init__(self, name: str, model: type[M]) -> None:
        slot: Any = Slot
        self.table: Table[Slot[M]] = Table(name, slot[model])

    def numbers(self, ctx: Context, key: str) -> range:
        """The numbers of all items of a key; empty if there are none."""
        span = ctx.get(self.table, _span(key))
        return range(span.first or 0, span.next or 0) if span is not None else range(0)

    def append(self, ctx: Context, key: str, id_: str, item: M) -> bool:
        """Adds an item at the end; returns False, and adds nothing, if one of this id waits already."""
        if self.find(ctx, key, id_) is not None:
            return False
        numbers = self.numbers(ctx, key)
        number = numbers.stop
        ctx.put(self.table, _item(key, number), Slot(item=item, id=id_))
        ctx.put(self.table, _span(key), Slot(first=numbers.start, next=number + 1))
        ctx.put(self.table, _id(key, id_), Slot(number=number))
        return True

    def get(self, ctx: Context, key: str, number: int) -> M | None:
        """The item of a number."""
        slot = ctx.get(self.table, _item(key, number))
        return slot.item if slot is not None else None

    def find(self, ctx: Context, key: str, id_: str) -> tuple[int, M] | None:
        """The item of an id, and its number."""
        found = ctx.get(self.table, _id(key, id_))
        if found is None or found.number is None or found.number not in self.numbers(ctx, key):
            return None
        slot = ctx.get(self.table, _item(key, found.number))
        return (found.number, slot.item) if slot is not None and slot.id == id_ and slot.item is not None else None

    def replace(self, ctx: Context, key: str, number: int, item: M) -> None:
        """Puts another item in place of one that waits."""
        slot = ctx.get(self.table, _item(key, number))
        if slot is not None:
            ctx.put(self.table, _item(key, number), slot.model_copy(update={"item": item}))

    def remove(self, ctx: Context, key: str, number: int) -> None:
        """Takes an item out. Its number stays until `advance` goes past it."""
        slot = ctx.get(self.table, _item(key, number))
        if slot is None:
            return
        ctx.delete(self.table, _item(key, number))
        if slot.id is not None:
            found = ctx.get(self.table, _id(key, slot.id))
            if found is not None and found.number == number:
                ctx.delete(self.table, _id(key, slot.id))

    def advance(self, ctx: Context, key: str, upto: int) -> None:
        """Has the queue begin behind numbers up to `upto` that have no item any more."""
        numbers = self.numbers(ctx, key)
        first = numbers.start
        while first < min(upto, numbers.stop) and ctx.get(self.table, _item(key, first)) is None:
            first += 1
        if first == numbers.stop:
            ctx.delete(self.table, _span(key))
        elif first != numbers.start:
            ctx.put(self.table, _span(key), Slot(first=first, next=numbers.stop))


def _span(key: str) -> str:
    return f"span/{key}"


def _item(key: str, number: int) -> str:
    return f"item/{number}/{key}"


def _id(key: str, id_: str) -> str:
    return f"id/{len(key)}/{key}/{id_}"
