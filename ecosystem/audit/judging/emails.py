"""Promise: every due e-mail is enqueued once, and delivered at least once.

If the answer of an SMTP server is lost, the e-mail is sent again with the same Message-ID. Repetitions are counted.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from ecosystem.audit.facts import Fact
from ecosystem.audit.judging.history import Observed, OrderHistory, facts_of, written_twice
from ecosystem.audit.judging.payments import payments_of
from ecosystem.audit.report import SKEW_MS, Rules, Violation, ViolationKind
from ecosystem.audit.sources import LEVELS, MODELS, Source
from email_service.state import EmailKind
from runtime.state.ttl_table import TTL
from schemas.messages import Customer, CustomerLevel, Order, OrderEnriched, OrderState
from schemas.money import format_amount

CustomerLookup = Callable[[int], Sequence[Fact]]
"""Returns the facts about a customer."""

TOMBSTONE_RETENTION_MS = timedelta(hours=24) / timedelta(milliseconds=1)
"""Milliseconds for which a compacted topic keeps tombstones at least (`delete.retention.ms`)."""

_STATE_OF = {
    EmailKind.VALIDATED: OrderState.VALIDATED,
    EmailKind.FAILED: OrderState.FAILED,
    EmailKind.SHIPPED: OrderState.SHIPPED,
    EmailKind.CANCELLED: OrderState.CANCELLED,
}


def judge(order: OrderHistory, rules: Rules, counts: Counter[str], customers: CustomerLookup) -> Iterator[Violation]:
    """Judges enriched orders and e-mails by the states of the order."""
    if Source.EMAILS not in rules.seen:
        return
    enqueued: dict[str, list[Observed[object]]] = defaultdict(list)
    for seen in order.of(Source.EMAILS):
        enqueued[seen.fact.about].append(seen)
    counts["emails"] += len(enqueued)
    delivered = order.of(Source.EMAILS_DELIVERED)
    kinds = {seen.fact.about for seen in delivered}
    counts["emails delivered"] += len(kinds)
    counts["emails delivered again"] += len(delivered) - len(kinds)
    counts["emails rejected"] += len(order.of(Source.EMAILS_REJECTED))
    yield from _enqueued_twice(order, enqueued, rules, counts)
    yield from _enriched_twice(order, rules, counts)
    if order.moving or order.posted is None or not (order.is_consistent or not order.finals):
        return
    customer = _CustomerHistory(customers(order.posted.message.customer_id), rules)
    yield from _enriched(order, customer, rules, counts)
    for kind in EmailKind:
        yield from _email(order, kind, customer, rules, counts)


class _CustomerHistory:
    """Levels of a customer, and when the customer became customer."""

    def __init__(self, facts: Sequence[Fact], rules: Rules) -> None:
        self._window_ms = rules.window / timedelta(milliseconds=1)
        self.since_ms: int | None = None
        """Time of the first record that still exists."""
        self._levels: set[str] = set()
        self._complete = Source.CUSTOMERS in rules.seen
        for fact in facts:
            try:
                record: Customer = MODELS[Source.CUSTOMERS].from_json(fact.value or b"")
            except ValueError:  # perhaps deleted for some time
                self._complete = False
                continue
            self._levels.add(record.level)
            self.since_ms = fact.time_ms if self.since_ms is None else self.since_ms

    def in_time(self, time_ms: int) -> bool:
        """Whether the customer certainly was known at `time_ms`, or within the window after it."""
        return self._complete and self.since_ms is not None and self.since_ms <= time_ms + self._window_ms - SKEW_MS

    def may_have_had(self, level: str, time_ms: int) -> bool:
        """Whether the customer may have had the level then. An earlier record may have been compacted away."""
        incomplete = not self._complete or self.since_ms is None or self.since_ms > time_ms - SKEW_MS
        return level in self._levels or incomplete


def _enqueued_twice(
    order: OrderHistory, enqueued: dict[str, list[Observed[object]]], rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    for kind, rows in enqueued.items():
        times = sum(seen.message is not None for seen in rows)
        redriven = sum(seen.fact.about == kind for seen in order.of(Source.EMAILS_REJECTED))  # at most
        if times > 1 + redriven:
            counts["emails enqueued again"] += times - 1
            if rules.exactly_once:
                text = f"its e-mail {kind} was enqueued {times} times"
                yield Violation(ViolationKind.EMAIL_TWICE, order.id, text, facts_of(rows))


def _enriched_twice(order: OrderHistory, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    enriched = order.of(Source.ENRICHED)
    if len(enriched) > 1:
        counts["enriched again"] += len(enriched) - 1
        if rules.exactly_once and written_twice(enriched):
            text = f"enriched {len(enriched)} times"
            yield Violation(ViolationKind.ENRICHED_TWICE, order.id, text, facts_of(enriched))


def _enriched(
    order: OrderHistory, customer: _CustomerHistory, rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    assert order.posted is not None
    enriched: list[Observed[OrderEnriched]] = order.of(Source.ENRICHED)
    validated = order.first_in(OrderState.VALIDATED)
    counts["enriched"] += bool(enriched)
    if not enriched:
        fact = validated.fact if validated else None
        if fact and customer.in_time(fact.time_ms) and rules.complete(Source.ENRICHED, fact.time_ms, fact.partition):
            if rules.overdue(max(fact.time_ms, customer.since_ms or 0)):
                text = "VALIDATED, its customer known, and not enriched"
                yield Violation(ViolationKind.NOT_ENRICHED, order.id, text, facts_of(order.posts[:1], order.finals))
            else:
                counts["emails due"] += 1
        return
    first = enriched[0]
    if validated is None or first.message.customer_id != order.posted.message.customer_id:
        why = "never VALIDATED" if validated is None else f"of customer {order.posted.message.customer_id}"
        text = f"enriched with customer {first.message.customer_id}, but {why}"
        records = facts_of(order.posts[:1], order.finals, enriched)
        yield Violation(ViolationKind.ENRICHED_WRONGLY, order.id, text, records)
    else:
        yield from _level(order, first, customer, rules)


def _level(
    order: OrderHistory, enriched: Observed[OrderEnriched], customer: _CustomerHistory, rules: Rules
) -> Iterator[Violation]:
    """An enriched order must have a level that the customer had, and be on the topic of that level only."""
    level, fact = enriched.message.customer_level, enriched.fact
    wanted = CustomerLevel(level) if level in set(CustomerLevel) else CustomerLevel.BRONZE
    published = {LEVELS[source]: order.of(source) for source in LEVELS if order.of(source)}
    records = facts_of([enriched], *published.values())
    if not customer.may_have_had(level, fact.time_ms):
        text = f"enriched as {level}, which its customer never was"
        yield Violation(ViolationKind.LEVEL_DIFFERS, order.id, text, records)
    elif published.keys() - {wanted}:
        text = f"of level {level}, and published to {', '.join(sorted(published.keys() - {wanted}))}"
        yield Violation(ViolationKind.LEVEL_DIFFERS, order.id, text, records)
    elif (
        rules.exactly_once
        and written_twice(published.get(wanted, ()))
        and len(published[wanted]) > len(order.of(Source.ENRICHED))
    ):
        yield Violation(ViolationKind.LEVEL_DIFFERS, order.id, f"published to {wanted} more than once", records)
    elif not published:
        [source] = [source for source in LEVELS if LEVELS[source] is wanted]
        if rules.complete(source, fact.time_ms, fact.partition):
            text = f"of level {level}, and not published to {wanted}"
            yield Violation(ViolationKind.LEVEL_DIFFERS, order.id, text, records)


def _email(
    order: OrderHistory, kind: EmailKind, customer: _CustomerHistory, rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    rows = [seen for seen in order.of(Source.EMAILS) if seen.fact.about == kind]
    delivered = [seen for seen in order.of(Source.EMAILS_DELIVERED) if seen.fact.about == kind]
    rejected = [seen for seen in order.of(Source.EMAILS_REJECTED) if seen.fact.about == kind]
    decided = order.first_in(_STATE_OF[kind])
    if decided is None and not rows and not delivered and not rejected:
        return
    records = facts_of(order.posts[:1], order.finals, rows, rejected, delivered)
    if rows or delivered or rejected:
        if decided is None:
            text = f"an e-mail {kind} was enqueued, and the order never was {_STATE_OF[kind]}"
            yield Violation(ViolationKind.EMAIL_WRONG, order.id, text, records)
        elif kind is EmailKind.VALIDATED and (fault := _unpaid(order, decided.message, rules)) is not None:
            yield Violation(*fault, [*records, *facts_of(order.of(Source.PAYMENTS))])
        elif _is_lost(rows, delivered, rejected, rules):
            text = f"its e-mail {kind} is acknowledged, and was not delivered"
            yield Violation(ViolationKind.EMAIL_LOST, order.id, text, records)
        elif rows and rows[-1].message is not None:
            counts["emails due"] += 1
        return
    if any(seen.fact.replayed for seen in (*order.finals, *order.of(Source.PAYMENTS))):
        counts["emails of a replay"] += 1  # which leaves side effects out
        return
    due_ms = _due_ms(order, kind, decided, customer, rules)
    if due_ms is None:
        return
    if not rules.overdue(due_ms):
        counts["emails due"] += 1
    elif rules.now_ms - due_ms < TOMBSTONE_RETENTION_MS or Source.EMAILS_DELIVERED in rules.seen:
        text = f"{_STATE_OF[kind]}, its customer known, and no letter was asked for"
        yield Violation(ViolationKind.EMAIL_MISSING, order.id, text, [*records, *facts_of(order.of(Source.PAYMENTS))])
    else:
        counts["unchecked emails"] += 1


def _is_lost(
    rows: Sequence[Observed[object]],
    delivered: Sequence[Observed[object]],
    rejected: Sequence[Observed[object]],
    rules: Rules,
) -> bool:
    """Whether an e-mail is acknowledged, but neither delivered nor rejected."""
    acknowledged = bool(rows) and rows[-1].message is None
    return acknowledged and not delivered and not rejected and Source.EMAILS_DELIVERED in rules.seen


def _due_ms(
    order: OrderHistory, kind: EmailKind, decided: Observed[Order] | None, customer: _CustomerHistory, rules: Rules
) -> int | None:
    """Returns when an e-mail was due; `None` if it was not, or it is unknown."""
    if decided is None or (kind is EmailKind.VALIDATED and OrderState.CANCELLED in order.states):
        return None  # a cancelled order may have been paid too late to be confirmed
    due_ms = decided.fact.time_ms
    if kind is EmailKind.VALIDATED:
        payments = payments_of(order, rules)
        remembered_ms = (rules.unpaid - TTL) / timedelta(milliseconds=1)
        distances_ms = (abs(seen.fact.time_ms - due_ms) for seen in order.of(Source.PAYMENTS))
        paid = payments.paid.covers(decided.message.value, rules.currency)
        if not paid or not payments.steady or max(distances_ms, default=0) > remembered_ms:
            return None
        due_ms = max(due_ms, payments.last_ms)
    return max(due_ms, customer.since_ms or 0) if customer.in_time(due_ms) else None


def _unpaid(order: OrderHistory, validated: Order, rules: Rules) -> tuple[ViolationKind, str, str] | None:
    """Returns what is wrong with the confirmation of an order that was not paid in full."""
    payments = payments_of(order, rules)
    if not payments.complete or not payments.steady or payments.paid.covers(validated.value, rules.currency):
        return None
    if not order.of(Source.PAYMENTS):
        text = f"an e-mail {EmailKind.VALIDATED} was enqueued, and there is no payment"
        return ViolationKind.EMAIL_WRONG, order.id, text
    paid, value = (format_amount(a, rules.currency) for a in (payments.paid.sum(rules.currency), validated.value))
    return ViolationKind.CONFIRMED_UNPAID, order.id, f"it was confirmed, and its payments add up to {paid} of {value}"
