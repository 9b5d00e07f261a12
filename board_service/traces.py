"""The newest orders with their stages, from records of all topics about orders. Pure, and bounded in memory."""

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

MOST_ORDERS = 5000
"""Orders that are kept: about 10 MB."""
_MOST_FAILED = 200
_OUT_OF_ORDER = 500
"""Orders that are looked at besides the newest: partitions are read one after the other."""
_MOST_EVENTS = 40
"""Events of an order that are kept: payments may be repeated without end."""
_MOST_EARLY = 2000
"""Orders whose events are kept although the order has not been read: brokers answer independently, and so do polls."""
_MOST_REASONS = 4
_LONGEST_TEXT = 400
"""Characters of a reason that are shown."""

SHOWN_STAGES = frozenset({"CREATED", "VALIDATED", "PAYMENT", "CHECK_IN", "SHIPPED"})
"""Stages of an order in a list."""
FINAL = frozenset({"FAILED", "SHIPPED", "CANCELLED"})


@dataclass(slots=True)
class Trace:
    """State, content and stages of an order. Times in milliseconds since 1970."""

    id: str
    customer: int
    product: str
    quantity: int
    price: float
    created_ms: int
    state: str
    changed_ms: int
    decided_ms: int | None = None
    reasons: tuple[str, ...] = ()
    whole: bool = False
    """Whether it was followed from its beginning."""
    events: list[dict[str, Any]] = field(default_factory=list)
    stages: dict[str, int] = field(default_factory=dict)
    """When each stage was first reached."""

    def add(self, stage: str, at_ms: int, **details: Any) -> None:
        """Adds an event."""
        self.changed_ms = max(self.changed_ms, at_ms)
        self.stages.setdefault(stage, at_ms)
        if len(self.events) < _MOST_EVENTS:
            self.events.append({"stage": stage, "at": at_ms, **details})

    def latest(self, stage: str, until_ms: int) -> int | None:
        """When it last reached a stage, up to a time."""
        return max((e["at"] for e in self.events if e["stage"] == stage and e["at"] <= until_ms), default=None)

    def row(self) -> dict[str, Any]:
        """The order as it is shown in a list."""
        return {
            "id": self.id,
            "customer": self.customer,
            "product": self.product,
            "quantity": self.quantity,
            "value": round(self.quantity * self.price, 4),
            "state": self.state,
            "created": self.created_ms,
            "changed": self.changed_ms,
            "reasons": self.reasons,
            "stages": {stage: at for stage, at in self.stages.items() if stage in SHOWN_STAGES},
        }


class Traces:
    """The newest orders."""

    def __init__(self, most: int = MOST_ORDERS) -> None:
        self.changes = 0
        """Changes so far."""
        self._most = most
        self._orders: dict[str, Trace] = {}
        self._in_flight: dict[str, None] = {}
        self._failed: deque[str] = deque(maxlen=_MOST_FAILED)
        self._early: dict[str, list[Callable[[Trace], None]]] = {}

    def __len__(self) -> int:
        return len(self._orders)

    def get(self, order_id: str) -> Trace | None:
        """The order, if it is among the newest."""
        return self._orders.get(order_id)

    def state(self, order: Mapping[str, Any], at_ms: int) -> Trace:
        """Takes an order in its current state."""
        self.changes += 1
        order_id, state = str(order["id"]), str(order["state"])
        reasons = texts(order.get("reasons"))
        trace = self._orders.get(order_id)
        if trace is None:
            trace = self._new(order, order_id, state, at_ms)
        if state == "CREATED":
            trace.decided_ms, trace.reasons = None, ()
        elif trace.decided_ms is None:
            trace.decided_ms = at_ms
        trace.state = state
        trace.reasons = reasons or trace.reasons
        attempt = order.get("attempt")
        trace.add(
            state, at_ms, **({"reasons": reasons} if reasons else {}), **({"attempt": attempt} if attempt else {})
        )
        if state in FINAL:
            self._in_flight.pop(order_id, None)
            if state == "FAILED":
                self._failed.append(order_id)
        else:
            self._in_flight[order_id] = None
        return trace

    def whenever(self, order_id: str, take: Callable[[Trace], None]) -> None:
        """Calls a function with an order: at once, or when the order is read."""
        trace = self._orders.get(order_id)
        if trace is not None:
            self.changes += 1
            take(trace)
        elif len(early := self._early.setdefault(order_id, [])) < _MOST_EVENTS:
            early.append(take)
            if len(self._early) > _MOST_EARLY:
                del self._early[next(iter(self._early))]

    def newest(self, most: int, filter_: str) -> Iterator[Trace]:
        """The newest orders: `all`, `in-flight` or `failed` ones."""
        ids: Any = {"all": self._orders, "in-flight": self._in_flight, "failed": self._failed}[filter_]
        seen = dict.fromkeys(islice(reversed(ids), most + _OUT_OF_ORDER))
        found = (self._orders[id_] for id_ in seen if id_ in self._orders)
        return iter(heapq.nlargest(most, found, key=lambda trace: trace.created_ms))

    def undecided(self) -> tuple[int, int | None]:
        """How many orders wait for their decision, and since when the oldest of them."""
        waiting = [t for id_ in self._in_flight if (t := self._orders[id_]).decided_ms is None]
        return len(waiting), min((t.created_ms for t in waiting), default=None)

    def forget_undecided(self) -> None:
        """Forgets the orders that wait for their decision."""
        for id_ in [id_ for id_ in self._in_flight if self._orders[id_].decided_ms is None]:
            del self._orders[id_], self._in_flight[id_]
        self.changes += 1

    def search(self, text: str, most: int) -> Iterator[Trace]:
        """Orders whose id, product, customer or reasons contain a text, in any case; newest first."""
        wanted = text.casefold()
        found = (t for t in reversed(self._orders.values()) if wanted in _searched(t))
        return islice(found, most)

    def _new(self, order: Mapping[str, Any], order_id: str, state: str, at_ms: int) -> Trace:
        trace = self._orders[order_id] = Trace(
            id=order_id,
            customer=int(order["customerId"]),
            product=str(order["product"]),
            quantity=int(order["quantity"]),
            price=float(order["price"]),
            created_ms=milliseconds(order.get("createdAt"), at_ms),
            state=state,
            changed_ms=at_ms,
            whole=state == "CREATED",
        )
        for take in self._early.pop(order_id, ()):
            take(trace)
        while len(self._orders) > self._most:
            oldest = next(iter(self._orders))
            del self._orders[oldest]
            self._in_flight.pop(oldest, None)
        return trace


def texts(values: Any) -> tuple[str, ...]:
    """Reasons, shortened."""
    found = values if isinstance(values, list) else ()
    return tuple(shortened(str(value)) for value in found[:_MOST_REASONS])


def shortened(text: str, most: int = _LONGEST_TEXT) -> str:
    """A text of limited length."""
    return text if len(text) <= most else text[: most - 1] + "…"


def milliseconds(text: Any, otherwise: int) -> int:
    """The time of an ISO 8601 text, milliseconds since 1970."""
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (TypeError, ValueError, OverflowError, OSError):
        return otherwise


def _searched(trace: Trace) -> str:
    return "\n".join((trace.id, trace.product, str(trace.customer), *trace.reasons)).casefold()
