"""The facts about one order, parsed and sorted by source."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from ecosystem.audit.facts import Fact
from ecosystem.audit.sources import MODELS, PUBLIC_SOURCES, Source, key_in_message
from orders_service.state import OrderView
from runtime.model.service import ScheduledTimer
from schemas.messages import Order, OrderState, OrderValidation
from schemas.wire import Message
from validators.inventory.state import Reservation

M = TypeVar("M")


class Observed(NamedTuple, Generic[M]):
    """A message, and the record that holds it. `message` is `None` for a deleted row."""

    message: M
    fact: Fact


@dataclass
class OrderHistory:
    """All facts about one order, each list in the order of its log."""

    id: str
    posts: list[Observed[Order]] = field(default_factory=list)
    finals: list[Observed[Order]] = field(default_factory=list)
    verdicts: list[Observed[OrderValidation]] = field(default_factory=list)
    rows: list[Observed[OrderView | None]] = field(default_factory=list)
    timers: list[Observed[ScheduledTimer | None]] = field(default_factory=list)
    reservations: list[Observed[Reservation | None]] = field(default_factory=list)
    others: dict[Source, list[Observed[Any]]] = field(default_factory=lambda: defaultdict(list))
    """Facts of all other sources."""
    unreadable: list[Fact] = field(default_factory=list)
    unreadable_rows: list[Fact] = field(default_factory=list)
    moving: bool = False
    """Whether more facts about it may be behind the end offsets."""

    def add(self, message: Any, fact: Fact) -> None:
        """Adds a message to the list of its source."""
        observed: list[Any]
        match fact.source:
            case Source.ORDERS:
                observed = self.finals if message.state.decided else self.posts
            case Source.VERDICTS:
                observed = self.verdicts
            case Source.VIEW:
                observed = self.rows
            case Source.TIMERS:
                observed = self.timers
            case Source.RESERVATIONS:
                observed = self.reservations
            case source:
                observed = self.others[source]
        observed.append(Observed(message, fact))

    @property
    def posted(self) -> Observed[Order] | None:
        """The first post under the id, which counts."""
        return self.posts[0] if self.posts else None

    @property
    def view(self) -> OrderView | None:
        """The last row of the view."""
        return self.rows[-1].message if self.rows else None

    @property
    def final(self) -> Observed[Order] | None:
        """The first final state."""
        return self.finals[0] if self.finals else None

    def of(self, source: Source) -> list[Observed[Any]]:
        """Returns the facts of another source."""
        return self.others.get(source, [])

    def row(self, source: Source) -> Any:
        """Returns the last row of a table of another source; `None` if there is none."""
        seen = self.of(source)
        return seen[-1].message if seen else None

    def first_in(self, state: OrderState) -> Observed[Order] | None:
        """Returns the first record with this final state."""
        return next((seen for seen in self.finals if seen.message.state is state), None)

    @property
    def states(self) -> frozenset[OrderState]:
        """The final states that were published."""
        return frozenset(seen.message.state for seen in self.finals)

    @property
    def is_consistent(self) -> bool:
        """Whether it has one final state, or VALIDATED and then SHIPPED or CANCELLED."""
        return self.states in _CONSISTENT


_CONSISTENT = (
    {OrderState.VALIDATED},
    {OrderState.FAILED},
    {OrderState.CANCELLED},
    {OrderState.VALIDATED, OrderState.SHIPPED},
    {OrderState.VALIDATED, OrderState.CANCELLED},
)


def build_history(order_id: str, facts: Iterable[Fact]) -> OrderHistory:
    """Parses the facts. Unreadable messages of public topics are only counted: services dead-letter them."""
    result = OrderHistory(order_id)
    for fact in facts:
        result.moving |= fact.late
        try:
            message = _parse(order_id, fact)
        except ValueError:
            unreadable = result.unreadable if fact.source in PUBLIC_SOURCES else result.unreadable_rows
            unreadable.append(fact)
            continue
        result.add(message, fact)
    return result


def facts_of(*lists: Sequence[Observed[Any]]) -> list[Fact]:
    """Returns the records of observed messages."""
    return [observed.fact for one in lists for observed in one]


def written_twice(seen: Sequence[Observed[Any]]) -> bool:
    """Whether one of these, which should be there once, was written again, and not by a replay."""
    return sum(not observed.fact.replayed for observed in seen) > 1


def by_id(seen: Iterable[Observed[M]], id_of: Callable[[M], str]) -> dict[str, list[Observed[M]]]:
    """Groups observed messages by their ids. The first one of an id is the one that counts."""
    result: dict[str, list[Observed[M]]] = {}
    for observed in seen:
        result.setdefault(id_of(observed.message), []).append(observed)
    return result


def _parse(order_id: str, fact: Fact) -> Message | None:
    if fact.value is None:
        if fact.source in PUBLIC_SOURCES:
            raise ValueError("is a tombstone")
        return None
    message: Message = MODELS[fact.source].from_json(fact.value)
    if fact.source in PUBLIC_SOURCES and key_in_message(fact.source, message) != order_id:
        raise ValueError("has another key than its message")
    return message
