"""Result of an audit: counts, violations, and what could not be checked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from ecosystem.audit.facts import Fact
from ecosystem.audit.sources import TOPICS, Source
from schemas.messages import CheckSet, CheckType, Need


class AuditError(Exception):
    """The audit could not be done. The text has cause and remedy."""


class ViolationKind(StrEnum):
    """Kinds of violations. docs/reference/audit-findings.md explains the values."""

    STUCK = "stuck"
    TWO_FINALS = "two-final-states"
    CHANGED_BACK = "changed-back"
    PUBLISHED_TWICE = "published-twice"
    NEVER_POSTED = "never-posted"
    CONTENT_DIFFERS = "content-differs"
    VALIDATED_WITHOUT = "validated-without-passes"
    FAILED_WITHOUT_REASON = "failed-without-reason"
    CHECKS_DIFFER = "required-checks-differ"
    CONTRADICTION = "contradictory-verdicts"
    VIEW_DIFFERS = "view-differs"
    NOT_PUBLISHED = "decided-not-published"
    RESERVATION_DIFFERS = "reservation-differs"
    RESERVED_NEVER_POSTED = "reserved-never-posted"
    FAILED_HOLDS = "failed-holds-stock"
    SHIPPED_HOLDS = "shipped-holds-stock"
    CANCELLED_HOLDS = "cancelled-holds-stock"
    VALIDATED_HOLDS_NOTHING = "validated-holds-nothing"
    RESERVED_TWICE = "reserved-twice"
    RELEASED_TWICE = "released-twice"
    SUM_DIFFERS = "reserved-sum-differs"
    OVERSOLD = "oversold"
    NEGATIVE = "reserved-negative"
    UNREADABLE_ROW = "unreadable-row"
    UNREADABLE_RECORD = "unreadable-record"
    COUNT_DIFFERS = "stock-count-differs"
    FULFILLED_TWICE = "fulfilled-twice"
    SHIPPED_WITHOUT = "shipped-without-needs"
    REFUND_MISSING = "refund-missing"
    REFUND_TWICE = "refund-twice"
    REFUND_WRONG = "refund-wrong"
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
    EMAIL_MISSING = "email-missing"
    EMAIL_TWICE = "email-twice"
    EMAIL_WRONG = "email-wrong"
    CONFIRMED_UNPAID = "confirmed-unpaid"
    EMAIL_LOST = "email-lost"
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
    """A broken promise: its subject (an order, a product, …), what is wrong, and the records that prove it."""

    kind: ViolationKind
    subject: str
    text: str
    records: Sequence[Fact] = ()

    @property
    def subject_type(self) -> str:
        """What the subject is: an order, unless the kind of violation tells otherwise."""
        if self.kind is ViolationKind.TOTALS_DIFFER:
            return "totals"
        if self.kind is ViolationKind.UNREADABLE_RECORD:
            return "record"
        if self.kind is ViolationKind.RECORDS_LOST:
            return "partition"
        if self.kind in _OF_EVENTS:
            return "event"
        return "product" if self.kind in _OF_PRODUCTS else "order"


class MisplacedRecord(NamedTuple):
    """A record in another partition than its key's. Services dead-letter it; no promise is broken."""

    topic: str
    partition: int
    offset: int
    key: str
    belongs: int
    """Partition of the key."""
    text: str
    """Both partitions, and the remedy."""


_OF_PRODUCTS = frozenset(
    {
        ViolationKind.SUM_DIFFERS,
        ViolationKind.OVERSOLD,
        ViolationKind.NEGATIVE,
        ViolationKind.COUNT_DIFFERS,
        ViolationKind.VERSIONS_DIFFER,
        ViolationKind.CHANGE_DIFFERS,
        ViolationKind.CHANGE_LOST,
        ViolationKind.CHANGE_UNKNOWN,
        ViolationKind.LOG_DIFFERS,
        ViolationKind.SUBSCRIBER_DIFFERS,
        ViolationKind.ALERT_TWICE,
        ViolationKind.ALERT_DIFFERS,
    }
)
_OF_EVENTS = frozenset(
    {ViolationKind.NOTICE_MISSING, ViolationKind.NOTICE_TWICE, ViolationKind.NOTICE_WRONG, ViolationKind.NOTICE_LOST}
)
OPEN_COUNTS = (
    "open",
    "to be released",
    "moving",
    "moving products",
    "to be shipped",
    "to be refunded",
    "to be published",
    "to be rejected",
    "emails due",
    "to be logged",
    "to be read by subscribers",
    "alerts due",
    "moving totals",
    "notices due",
)
"""Names of the counts of results that are still due, in time."""

SKEW_MS = 5000
"""Milliseconds by which the clocks of producers may differ."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings by which facts are judged.

    Arguments:
        required: checks that an order must pass whose row does not tell, and before the first of `sets`.
        sets: sets of required checks, by their start.
        deadline: time after which missing verdicts fail an order, if its timer is unknown.
        grace: delay after which a missing result is a violation. Until then it counts as open.
        exactly_once: whether a repeated output record is a violation, or only counted.
        now_ms: start of the audit.
        needs: prerequisites of shipping.
        patience: how long a check-in waits for its order.
        window: how long an e-mail waits for its customer.
        currency: currency of orders.
        unpaid: how long an unpaid order can still be confirmed.
        price_drop: share of its price by which one change may lower a product's price.
        changes: changes of a product allowed within `changes_window`.
        changes_window: period in which changes are counted.
        notified: recipients of e-mails about products.
        partial: whether orders are not read from the beginning: an order without a post may have been posted before.
        from_ms: by source and partition, the time from which all messages exist; absent: all exist.
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
    sets: Sequence[CheckSet] = ()
    partial: bool = False
    from_ms: Mapping[Source, Mapping[int, int]] = field(default_factory=dict)
    seen: frozenset[Source] = frozenset()

    def complete(self, source: Source, time_ms: int, partition: int | None = None) -> bool:
        """Whether all messages of a source since `time_ms` still exist, in one partition or in all."""
        starts = self.from_ms.get(source, {})
        start = max(starts.values(), default=0) if partition is None else starts.get(partition, 0)
        return source in self.seen and time_ms - SKEW_MS >= start

    def overdue(self, due_ms: int) -> bool:
        """Whether a missing result has been due for longer than the grace."""
        return self.now_ms - due_ms > self.grace.total_seconds() * 1000


@dataclass
class Report:
    """Counts and violations. All violations are counted; the first `max_kept` of each kind are kept with their records.

    `currency` is that of the prices in records.
    """

    max_kept: int = 100
    currency: str = "EUR"
    counts: Counter[str] = field(default_factory=Counter)
    found: Counter[ViolationKind] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    misplaced: list[MisplacedRecord] = field(default_factory=list)
    """The first of each topic; all are counted."""
    missing_topics: tuple[str, ...] = ()
    """Topics of the core that do not exist: what they would show is not checked."""
    absent_services: tuple[str, ...] = ()
    """Services that have never run: nothing is expected of them."""
    not_compared: tuple[str, ...] = ()
    """Databases and e-mails that were not given."""
    unreadable: Sequence[str] = ()
    """Position and cause of the first records that could not be decoded."""
    lost: set[int] = field(default_factory=set)
    """Partitions of lost records: other violations there may follow from the loss."""

    @property
    def ok(self) -> bool:
        """Whether no violation was found."""
        return not self.found

    @property
    def open(self) -> int:
        """Number of results that are still due, in time: neither a violation nor proven."""
        return sum(self.counts[name] for name in OPEN_COUNTS)

    def add(self, violation: Violation) -> None:
        """Counts a violation, and keeps it if fewer than `max_kept` of its kind are kept."""
        if violation.kind is not ViolationKind.RECORDS_LOST and self.lost.intersection(
            fact.partition for fact in violation.records if fact.source in TOPICS
        ):
            violation = violation._replace(
                text=f"{violation.text}; records of its partition were lost, see records-lost"
            )
        self.found[violation.kind] += 1
        if self.found[violation.kind] <= self.max_kept:
            self.violations.append(violation)
