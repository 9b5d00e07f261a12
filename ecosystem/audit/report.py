"""What an audit comes to: counts, violations, and what could not be checked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from ecosystem.audit.facts import TOPICS, Fact, Source
from schemas.messages import CheckType, Need


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
    UNREADABLE_RECORD = "unreadable-record"
    COUNT_DIFFERS = "stock-count-differs"
    FULFILLED_TWICE = "fulfilled-twice"
    SHIPPED_WITHOUT = "shipped-without-needs"
    NOT_FULFILLED = "not-fulfilled"
    NOT_SHIPPED = "not-shipped"
    PROGRESS_DIFFERS = "fulfilment-differs"
    CHECKIN_DIFFERS = "checkin-differs"
    CHECKIN_LOST = "checkin-lost"
    CHECKIN_UNKNOWN = "checkin-unknown"
    CHECKIN_STATUS = "checkin-status-differs"
    NOT_REJECTED = "not-rejected"
    REJECTED_TWICE = "rejected-twice"
    REJECTED_WRONGLY = "rejected-wrongly"
    PORTAL_DIFFERS = "portal-differs"
    NOT_ENRICHED = "not-enriched"
    ENRICHED_TWICE = "enriched-twice"
    ENRICHED_WRONGLY = "enriched-wrongly"
    LEVEL_DIFFERS = "level-differs"
    LETTER_MISSING = "letter-missing"
    LETTER_TWICE = "letter-twice"
    LETTER_WRONG = "letter-wrong"
    CONFIRMED_UNPAID = "confirmed-unpaid"
    LETTER_LOST = "letter-lost"
    VERSIONS_DIFFER = "product-versions"
    CHANGE_DIFFERS = "change-differs"
    CHANGE_LOST = "change-lost"
    CHANGE_UNKNOWN = "change-unknown"
    LOG_DIFFERS = "product-log-differs"
    SUBSCRIBER_DIFFERS = "subscriber-differs"
    ALERT_TWICE = "alert-twice"
    ALERT_DIFFERS = "alert-differs"
    TOTALS_DIFFER = "totals-differ"
    NOTICE_MISSING = "notice-missing"
    NOTICE_TWICE = "notice-twice"
    NOTICE_WRONG = "notice-wrong"
    NOTICE_LOST = "notice-lost"
    RECORDS_LOST = "records-lost"


class Violation(NamedTuple):
    """One broken promise: of which order or product, what is wrong, and the records that show it."""

    kind: Kind
    subject: str
    says: str
    records: Sequence[Fact] = ()

    @property
    def of(self) -> str:
        """What the subject is."""
        if self.kind is Kind.TOTALS_DIFFER:
            return "totals"
        if self.kind is Kind.UNREADABLE_RECORD:
            return "record"
        if self.kind is Kind.RECORDS_LOST:
            return "partition"
        if self.kind in OF_EVENTS:
            return "event"
        return "product" if self.kind in OF_PRODUCTS else "order"


class Misplaced(NamedTuple):
    """A record that stands in another partition than its key's: every service sets it aside. No broken promise."""

    topic: str
    partition: int
    offset: int
    key: str
    belongs: int
    """Partition of the key."""
    says: str
    """Both numbers, and what to do about it."""


OF_PRODUCTS = frozenset(
    {
        Kind.SUM_DIFFERS,
        Kind.OVERSOLD,
        Kind.NEGATIVE,
        Kind.COUNT_DIFFERS,
        Kind.VERSIONS_DIFFER,
        Kind.CHANGE_DIFFERS,
        Kind.CHANGE_LOST,
        Kind.CHANGE_UNKNOWN,
        Kind.LOG_DIFFERS,
        Kind.SUBSCRIBER_DIFFERS,
        Kind.ALERT_TWICE,
        Kind.ALERT_DIFFERS,
    }
)
OF_EVENTS = frozenset({Kind.NOTICE_MISSING, Kind.NOTICE_TWICE, Kind.NOTICE_WRONG, Kind.NOTICE_LOST})
OPEN = (
    "open",
    "giving back",
    "moving",
    "moving products",
    "to be shipped",
    "to be announced",
    "to be rejected",
    "letters to come",
    "to be logged",
    "to be heard of",
    "alerts to come",
    "moving totals",
    "notices to come",
)
"""Counts of what is still to come, in time."""

SKEW_MS = 5000
"""By how much the clocks of those who write may differ."""


@dataclass(frozen=True, slots=True)
class Rules:
    """By what is judged.

    Arguments:
        required: checks that an order must pass.
        deadline: after which missing verdicts fail an order whose timer is not known.
        grace: how much later than it should something may still come. Until then it counts as open.
        exactly_once: whether what is announced or written twice is a violation, or only counted.
        now_ms: when the audit began.
        needs: what has to happen before an order is shipped.
        patience: how long a check-in waits for its order.
        window: how long a letter waits for its customer.
        currency: the one that orders are in.
        unpaid: how long an order that is not paid in full can still be confirmed.
        price_drop: share of its price that a product may lose in one change.
        changes: how many changes of a product there may be within `changes_window`.
        changes_window: of time.
        notified: addresses to which whatever happens to a product is written.
        partial: orders are not read from their beginning: one of which only later records are seen began before.
        from_ms: by source and partition, from when on all messages are there; absent: for ever.
        seen: sources that were read.
    """

    required: frozenset[CheckType]
    deadline: timedelta
    grace: timedelta
    exactly_once: bool
    now_ms: int
    needs: tuple[Need, ...] = tuple(Need)
    patience: timedelta = timedelta(seconds=60)
    window: timedelta = timedelta(seconds=60)
    currency: str = "EUR"
    unpaid: timedelta = timedelta(days=90)
    price_drop: Decimal = Decimal("0.9")
    changes: int = 10
    changes_window: timedelta = timedelta(seconds=60)
    notified: Sequence[str] = ()
    partial: bool = False
    from_ms: Mapping[Source, Mapping[int, int]] = field(default_factory=dict)
    seen: frozenset[Source] = frozenset()

    def complete(self, source: Source, time_ms: int, partition: int | None = None) -> bool:
        """Whether all messages of a source from then on are still there, in a partition or in all of them."""
        starts = self.from_ms.get(source, {})
        start = max(starts.values(), default=0) if partition is None else starts.get(partition, 0)
        return source in self.seen and time_ms - SKEW_MS >= start

    def overdue(self, since_ms: int) -> bool:
        """Whether what should have followed at once is missing for longer than the grace."""
        return self.now_ms - since_ms > self.grace.total_seconds() * 1000


@dataclass
class Report:
    """The outcome. `kept` bounds the violations of one kind that are kept with their records; all are counted.

    `currency` is that of the prices in records.
    """

    kept: int = 100
    currency: str = "EUR"
    counts: Counter[str] = field(default_factory=Counter)
    found: Counter[Kind] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    misplaced: list[Misplaced] = field(default_factory=list)
    """The first ones of each topic; all are counted."""
    missing: tuple[str, ...] = ()
    """Topics that do not exist, and what they would have told is not checked."""
    absent: tuple[str, ...] = ()
    """Services that have never run here, and what they would have done is not expected."""
    unasked: tuple[str, ...] = ()
    """What there was no way to: databases, delivered letters."""
    unreadable: Sequence[str] = ()
    """The first of the records that could not be made out at all: where they stand, and why."""
    lost: set[int] = field(default_factory=set)
    """Numbers of partitions of which records were lost: what else is wrong there may follow from it."""

    @property
    def ok(self) -> bool:
        """Whether no violation was found."""
        return not self.found

    @property
    def open(self) -> int:
        """Orders and products of which something is still to come, in time: no violation yet, nor proven."""
        return sum(self.counts[name] for name in OPEN)

    def add(self, violation: Violation) -> None:
        """Counts it, and keeps it while there is room."""
        if violation.kind is not Kind.RECORDS_LOST and self.lost.intersection(
            fact.partition for fact in violation.records if fact.source in TOPICS
        ):
            violation = violation._replace(
                says=f"{violation.says}; records of its partition were lost, see records-lost"
            )
        self.found[violation.kind] += 1
        if self.found[violation.kind] <= self.kept:
            self.violations.append(violation)
