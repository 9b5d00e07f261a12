"""What would have been otherwise: orders by how they ended and would have ended, with their value."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from ecosystem.what_if.outcomes import Outcome
from ecosystem.what_if.recorded import Entry
from ecosystem.what_if.runner import NEVER
from schemas.messages import OrderState


class Case(NamedTuple):
    """An order: how it ended by the records, as recomputed, and under other settings."""

    order_id: str
    value: Decimal
    recorded: Outcome
    recomputed: Outcome
    changed: Outcome


@dataclass(slots=True)
class Tally:
    """A number of orders, and their total value."""

    orders: int = 0
    value: Decimal = Decimal()

    def add(self, orders: int, value: Decimal) -> None:
        self.orders += orders
        self.value += value


@dataclass(slots=True)
class Difference:
    """The difference between two sets of settings, over the orders of a range.

    `undecided` are the orders whose recorded outcome the replay does not give even under the settings that were in
    force, as the records do not tell in which order a service read its inputs. They are in no other figure but `all`.

    Arguments:
        most_cases: orders that are listed of each kind; all are counted.
    """

    most_cases: int = 100
    all: Tally = field(default_factory=Tally)
    before: dict[OrderState, Tally] = field(default_factory=dict)
    after: dict[OrderState, Tally] = field(default_factory=dict)
    changes: dict[tuple[Outcome, Outcome], Tally] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    undecided: Tally = field(default_factory=Tally)
    undecided_cases: list[Case] = field(default_factory=list)
    records: int = 0
    rejected: int = 0

    @property
    def changed(self) -> Tally:
        """The orders that would have ended otherwise."""
        total = Tally()
        for tally in self.changes.values():
            total.add(tally.orders, tally.value)
        return total

    def add(self, case: Case) -> None:
        """Adds an order."""
        self.all.add(1, case.value)
        if not case.recomputed.agrees(case.recorded):
            self.undecided.add(1, case.value)
            if len(self.undecided_cases) < self.most_cases:
                self.undecided_cases.append(case)
            return
        self.before.setdefault(case.recomputed.state, Tally()).add(1, case.value)
        self.after.setdefault(case.changed.state, Tally()).add(1, case.value)
        if not case.changed.agrees(case.recomputed):
            self.changes.setdefault((case.recomputed, case.changed), Tally()).add(1, case.value)
            if len(self.cases) < self.most_cases:
                self.cases.append(case)

    def merge(self, other: "Difference") -> None:
        """Adds the orders of another process. All processes read the same records."""
        self.all.add(other.all.orders, other.all.value)
        self.undecided.add(other.undecided.orders, other.undecided.value)
        for own, others in ((self.before, other.before), (self.after, other.after)):
            for state, tally in others.items():
                own.setdefault(state, Tally()).add(tally.orders, tally.value)
        for change, tally in other.changes.items():
            self.changes.setdefault(change, Tally()).add(tally.orders, tally.value)
        self.cases = sorted([*self.cases, *other.cases])[: self.most_cases]
        self.undecided_cases = sorted([*self.undecided_cases, *other.undecided_cases])[: self.most_cases]
        self.records = max(self.records, other.records)
        self.rejected = max(self.rejected, other.rejected)


def compare(entries: Mapping[str, Entry], from_ms: int, to_ms: int, most_cases: int, *, changed: bool) -> Difference:
    """Compares the outcomes of orders posted in a range. Without `changed` settings the second outcome is the first."""
    difference = Difference(most_cases)
    for case in _cases(entries, from_ms, to_ms, changed):
        difference.add(case)
    return difference


def _cases(entries: Mapping[str, Entry], from_ms: int, to_ms: int, changed: bool) -> Iterable[Case]:
    for order_id, entry in entries.items():
        if entry.created_ms < NEVER and from_ms <= entry.created_ms < to_ms:
            first, second = entry.outcomes
            yield Case(order_id, entry.value, entry.recorded, first, second if changed else first)
