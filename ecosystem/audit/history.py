"""The facts about one order, read and put in their places."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from ecosystem.audit.facts import MODELS, Fact, Source
from orders_service.state import OrderView
from runtime.service import Wake
from schemas.messages import Order, OrderState, OrderValidation
from schemas.topics import ORDER_VALIDATIONS, ORDERS
from schemas.wire import Message
from validators.inventory.state import Reservation

M = TypeVar("M")


class Seen(NamedTuple, Generic[M]):
    """A message and the record it stands in. `None`: a row that was deleted."""

    message: M
    fact: Fact


@dataclass
class History:
    """All that is known of one order, each list in the order of its log."""

    id: str
    posts: list[Seen[Order]] = field(default_factory=list)
    finals: list[Seen[Order]] = field(default_factory=list)
    verdicts: list[Seen[OrderValidation]] = field(default_factory=list)
    rows: list[Seen[OrderView | None]] = field(default_factory=list)
    timers: list[Seen[Wake | None]] = field(default_factory=list)
    reservations: list[Seen[Reservation | None]] = field(default_factory=list)
    unreadable: list[Fact] = field(default_factory=list)
    bad_rows: list[Fact] = field(default_factory=list)
    moving: bool = False
    """Whether more of it may lie behind the ends that were found."""

    def place(self, message: Any, fact: Fact) -> None:
        """Adds what a record says."""
        if fact.source is Source.ORDERS:
            places: list[Any] = self.finals if message.state.decided else self.posts
        else:
            lists: dict[Source, list[Any]] = {
                Source.VERDICTS: self.verdicts,
                Source.VIEW: self.rows,
                Source.TIMERS: self.timers,
                Source.RESERVATIONS: self.reservations,
            }
            places = lists[fact.source]
        places.append(Seen(message, fact))

    @property
    def posted(self) -> Seen[Order] | None:
        """The order as it counts: the first one under its id."""
        return self.posts[0] if self.posts else None

    @property
    def view(self) -> OrderView | None:
        """The row of the view as it stands."""
        return self.rows[-1].message if self.rows else None

    @property
    def final(self) -> Seen[Order] | None:
        """What was decided of it first."""
        return self.finals[0] if self.finals else None

    @property
    def states(self) -> frozenset[OrderState]:
        """The final states it was announced in."""
        return frozenset(seen.message.state for seen in self.finals)

    @property
    def agreed(self) -> bool:
        """Whether it has one final state, or one and the shipping that follows from it."""
        return self.states in _AGREED


_AGREED = (
    {OrderState.VALIDATED},
    {OrderState.FAILED},
    {OrderState.VALIDATED, OrderState.SHIPPED},
)


_KEYS: Mapping[Source, Callable[[Any], str]] = {Source.ORDERS: ORDERS.key, Source.VERDICTS: ORDER_VALIDATIONS.key}


def history(order_id: str, facts: Iterable[Fact]) -> History:
    """Reads the facts. What the services cannot read, and have set aside, is only counted."""
    result = History(order_id)
    for fact in facts:
        result.moving |= fact.late
        try:
            message = _read(order_id, fact)
        except ValueError:
            places = result.unreadable if fact.source in {Source.ORDERS, Source.VERDICTS} else result.bad_rows
            places.append(fact)
            continue
        result.place(message, fact)
    return result


def facts_of(*lists: Sequence[Seen[Any]]) -> list[Fact]:
    """The records of what was seen."""
    return [seen.fact for some in lists for seen in some]


def _read(order_id: str, fact: Fact) -> Message | None:
    if fact.value is None:
        if fact.source in {Source.ORDERS, Source.VERDICTS}:
            raise ValueError("a tombstone")
        return None
    message: Message = MODELS[fact.source].from_json(fact.value)
    if _KEYS.get(fact.source, lambda _: order_id)(message) != order_id:
        raise ValueError("stands under another key")
    return message
