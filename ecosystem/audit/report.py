"""What an audit comes to: counts, violations, and what could not be checked."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from ecosystem.audit.facts import Fact
from schemas.messages import CheckType


class AuditError(Exception):
    """The audit could not be done."""


class Kind(StrEnum):
    """In how many ways the promise can be broken."""

    STUCK = "stuck"
    TWO_FINALS = "two-final-states"
    CHANGED_BACK = "changed-back"
    ANNOUNCED_TWICE = "announced-twice"
    NEVER_POSTED = "never-posted"
    CONTENT_DIFFERS = "content-differs"
    VALIDATED_WITHOUT = "validated-without-passes"
    FAILED_WITHOUT_REASON = "failed-without-reason"
    CONTRADICTION = "contradictory-verdicts"
    VIEW_DIFFERS = "view-differs"
    NOT_ANNOUNCED = "decided-not-announced"
    RESERVATION_DIFFERS = "reservation-differs"
    RESERVED_NEVER_POSTED = "reserved-never-posted"
    FAILED_HOLDS = "failed-holds-stock"
    SHIPPED_HOLDS = "shipped-holds-stock"
    VALIDATED_HOLDS_NOTHING = "validated-holds-nothing"
    TAKEN_TWICE = "taken-twice"
    GIVEN_BACK_TWICE = "given-back-twice"
    SUM_DIFFERS = "reserved-sum-differs"
    OVERSOLD = "oversold"
    NEGATIVE = "reserved-negative"
    UNREADABLE_ROW = "unreadable-row"


class Violation(NamedTuple):
    """One broken promise: of which order or product, what is wrong, and the records that show it."""

    kind: Kind
    subject: str
    says: str
    records: Sequence[Fact] = ()

    @property
    def of(self) -> str:
        """What the subject is."""
        return "product" if self.kind in OF_PRODUCTS else "order"


OF_PRODUCTS = frozenset({Kind.SUM_DIFFERS, Kind.OVERSOLD, Kind.NEGATIVE})


@dataclass(frozen=True, slots=True)
class Rules:
    """By what is judged.

    Arguments:
        required: checks that an order must pass.
        deadline: after which missing verdicts fail an order whose timer is not known.
        grace: how much later than it should something may still come. Until then it counts as open.
        exactly_once: whether what is announced or written twice is a violation, or only counted.
        now_ms: when the audit began.
        partial: orders are not read from their beginning: one of which only later records are seen began before.
        verdicts_from_ms: by partition, from when on all verdicts are there; absent: for ever.
        seen: sources whose topics exist.
    """

    required: frozenset[CheckType]
    deadline: timedelta
    grace: timedelta
    exactly_once: bool
    now_ms: int
    partial: bool = False
    verdicts_from_ms: dict[int, int] = field(default_factory=dict)
    seen: frozenset[int] = frozenset()

    def overdue(self, since_ms: int) -> bool:
        """Whether what should have followed at once is missing for longer than the grace."""
        return self.now_ms - since_ms > self.grace.total_seconds() * 1000


@dataclass
class Report:
    """The outcome. `kept` bounds the violations of one kind that are kept with their records; all are counted."""

    kept: int = 100
    counts: Counter[str] = field(default_factory=Counter)
    found: Counter[Kind] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    missing: tuple[str, ...] = ()
    """Topics that do not exist, and what they would have told is not checked."""

    @property
    def ok(self) -> bool:
        """Whether no violation was found."""
        return not self.found

    @property
    def open(self) -> int:
        """Orders and products of which something is still to come, in time: no violation yet, nor proven."""
        return self.counts["open"] + self.counts["giving back"] + self.counts["moving"] + self.counts["moving products"]

    def add(self, violation: Violation) -> None:
        """Counts it, and keeps it while there is room."""
        self.found[violation.kind] += 1
        if self.found[violation.kind] <= self.kept:
            self.violations.append(violation)
