"""Which records are replayed. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ecosystem.replay.stages import ABOUT_NO_ORDER, INPUTS
from history_service.filters import Filters
from history_service.stages import Stage


@dataclass(frozen=True, slots=True)
class Service:
    """A service that has failed: its name, and its check if it is a validator."""

    name: str
    check: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """What is replayed, and how.

    Arguments:
        ids: orders by name; empty: those of `filters`.
        filters: which orders. Its times, product and customer also tell which records about no order.
        failed: only orders on which this service failed: it has a dead letter of theirs, or its check did not pass.
        stages: whose records are sent.
        replays_too: whether to replay what is itself a replay, or follows from one.
        max_replays: how often a record may have been replayed, this time included.
        redecide: whether to decide FAILED orders anew, under a new attempt number.
        in_order: whether to send in waves, in the order in which records were processed.
        side_effects: whether the replay performs side effects.
    """

    ids: tuple[str, ...] = ()
    filters: Filters = field(default_factory=Filters)
    failed: Service | None = None
    stages: tuple[Stage, ...] = (Stage.CREATED,)
    replays_too: bool = False
    max_replays: int = 3
    redecide: bool = False
    in_order: bool = False
    side_effects: bool = False

    @property
    def of_orders(self) -> tuple[Stage, ...]:
        """The stages of orders."""
        return tuple(stage for stage in self.stages if stage not in ABOUT_NO_ORDER)

    @property
    def of_no_order(self) -> tuple[Stage, ...]:
        """The stages of records about no order. None of them belong to orders that are named, or told by their end."""
        if self.tells_orders:
            return ()
        return tuple(stage for stage in self.stages if stage in ABOUT_NO_ORDER)

    @property
    def tells_orders(self) -> bool:
        """Whether it says something of orders that no other record can satisfy."""
        return bool(self.ids or self.filters.states or self.filters.reason or self.failed)

    @property
    def cancelled_by_clients(self) -> bool:
        """Whether orders that clients cancelled are cancelled again.

        A `DELETE` leaves no record but the CANCELLED order. What it asked for is sent to `cancellations`.
        """
        return set(INPUTS) <= set(self.stages)

    def described(self) -> Mapping[str, Any]:
        """What tells it apart from others, as JSON has it."""
        f = self.filters
        times = {"from": f.since, "to": f.before}
        ids = hashlib.blake2b("\0".join(self.ids).encode(errors="surrogatepass"), digest_size=8).hexdigest()
        found = {
            "ids": f"{len(self.ids)} orders, {ids}" if self.ids else None,
            "state": [state.value for state in f.states],
            "customer": f.customer_id,
            "product": f.product,
            "reason": f.reason,
            **{name: at.isoformat() for name, at in times.items() if at is not None},
            "failed-service": self.failed.name if self.failed else None,
            "stage": sorted(self.stages),
            "replays-too": self.replays_too,
            "max-replays": self.max_replays,
            "redecide": self.redecide,
            "in-order": self.in_order,
            "with-side-effects": self.side_effects,
        }
        return {name: value for name, value in found.items() if value not in (None, False, [])}


def digest(described: Mapping[str, Any]) -> str:
    """Tells descriptions apart."""
    text = json.dumps(described, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()
