"""The facts about one order, read and put in their places."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from ecosystem.audit.facts import MESSAGES, MODELS, Fact, Source, id_in
from orders_service.state import OrderView
from runtime.model.service import ScheduledTimer
from schemas.messages import Order, OrderState, OrderValidation
from schemas.wire import Message
from validators.inventory.state import Reservation

M = TypeVar("M")


class Observed(NamedTuple, Generic[M]):
    """A message and the record it stands in. `None`: a row that was deleted."""

    message: M
    fact: Fact


@dataclass
class History:
    """All that is known of one order, each list in the order of its log."""

    id: str
    posts: list[Observed[Order]] = field(default_factory=list)
    finals: list[Observed[Order]] = field(default_factory=list)
    verdicts: list[Observed[OrderValidation]] = field(default_factory=list)
    rows: list[Observed[OrderView | None]] = field(default_factory=list)
    timers: list[Observed[ScheduledTimer | None]] = field(default_factory=list)
    reservations: list[Observed[Reservation | None]] = field(default_factory=list)
    around: dict[Source, list[Observed[Any]]] = field(default_factory=lambda: defaultdict(list))
    """What the services around the core, and their databases, have of it."""
    unreadable: list[Fact] = field(default_factory=list)
    bad_rows: list[Fact] = field(default_factory=list)
    moving: bool = False
    """Whether more of it may lie behind the ends that were found."""

    def place(self, message: Any, fact: Fact) -> None:
        """Adds what a record says."""
        places: list[Any]
        match fact.source:
            case Source.ORDERS:
                places = self.finals if message.state.decided else self.posts
            case Source.VERDICTS:
                places = self.verdicts
            case Source.VIEW:
                places = self.rows
            case Source.TIMERS:
                places = self.timers
            case Source.RESERVATIONS:
                places = self.reservations
            case source:
                places = self.around[source]
        places.append(Observed(message, fact))

    @property
    def posted(self) -> Observed[Order] | None:
        """The order as it counts: the first one under its id."""
        return self.posts[0] if self.posts else None

    @property
    def view(self) -> OrderView | None:
        """The row of the view as it stands."""
        return self.rows[-1].message if self.rows else None

    @property
    def final(self) -> Observed[Order] | None:
        """What was decided of it first."""
        return self.finals[0] if self.finals else None

    def of(self, source: Source) -> list[Observed[Any]]:
        """What a source around the core tells."""
        return self.around.get(source, [])

    def row(self, source: Source) -> Any:
        """The row of a table around the core as it stands; `None` if there is none."""
        seen = self.of(source)
        return seen[-1].message if seen else None

    def came_to(self, state: OrderState) -> Observed[Order] | None:
        """Where it was first announced in this state."""
        return next((seen for seen in self.finals if seen.message.state is state), None)

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


def history(order_id: str, facts: Iterable[Fact]) -> History:
    """Reads the facts. What the services cannot read, and have set aside, is only counted."""
    result = History(order_id)
    for fact in facts:
        result.moving |= fact.late
        try:
            message = _read(order_id, fact)
        except ValueError:
            places = result.unreadable if fact.source in MESSAGES else result.bad_rows
            places.append(fact)
            continue
        result.place(message, fact)
    return result


def facts_of(*lists: Sequence[Observed[Any]]) -> list[Fact]:
    """The records of what was seen."""
    return [seen.fact for some in lists for seen in some]


def _read(order_id: str, fact: Fact) -> Message | None:
    if fact.value is None:
        if fact.source in MESSAGES:
            raise ValueError("a tombstone")
        return None
    message: Message = MODELS[fact.source].from_json(fact.value)
    if fact.source in MESSAGES and id_in(fact.source, message) != order_id:
        raise ValueError("stands under another key")
    return message
