"""The promise about letters: each is asked for once where it is due, and delivered once at least.

What SMTP takes it may take again: a server that took a letter, and was not heard to. Then the second one has the same
Message-ID, and is counted here.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from ecosystem.audit.facts import LEVELS, MODELS, Fact, Source
from ecosystem.audit.judging.history import History, Observed, facts_of
from ecosystem.audit.judging.payments import payments_of
from ecosystem.audit.report import SKEW_MS, Kind, Rules, Violation
from email_service.state import EmailKind
from runtime.state.ttl_table import TTL
from schemas.messages import Customer, CustomerLevel, Order, OrderEnriched, OrderState
from schemas.money import format_amount

Customers = Callable[[int], Sequence[Fact]]
"""Gives all that is known of a customer."""

KEPT_MS = timedelta(hours=24) / timedelta(milliseconds=1)
"""For how long a tombstone surely stays where topics are compacted (`delete.retention.ms`)."""

_TOLD = {
    EmailKind.VALIDATED: OrderState.VALIDATED,
    EmailKind.FAILED: OrderState.FAILED,
    EmailKind.SHIPPED: OrderState.SHIPPED,
}


def judge(order: History, rules: Rules, counts: Counter[str], customers: Customers) -> Iterator[Violation]:
    """Holds what the email service wrote, asked for and delivered against what became of the order."""
    if Source.LETTERS not in rules.seen:
        return
    asked: dict[str, list[Observed[object]]] = defaultdict(list)
    for seen in order.of(Source.LETTERS):
        asked[seen.fact.about].append(seen)
    counts["letters"] += len(asked)
    counts["letters delivered"] += len({seen.fact.about for seen in order.of(Source.MAIL)})
    counts["letters delivered again"] += len(order.of(Source.MAIL)) - len({s.fact.about for s in order.of(Source.MAIL)})
    counts["letters refused"] += len(order.of(Source.REFUSED))
    yield from _asked_twice(order, asked, rules, counts)
    yield from _enriched_twice(order, rules, counts)
    if order.moving or order.posted is None or not (order.agreed or not order.finals):
        return
    known = _Known(customers(order.posted.message.customer_id), rules)
    yield from _enriched(order, known, rules, counts)
    for kind in EmailKind:
        yield from _letter(order, kind, known, rules, counts)


class _Known:
    """What is known of a customer, and when they became known."""

    def __init__(self, facts: Sequence[Fact], rules: Rules) -> None:
        self._window_ms = rules.window / timedelta(milliseconds=1)
        self.since_ms: int | None = None
        """Where the first record of them stands that is still there."""
        self._levels: set[str] = set()
        self._sure = Source.CUSTOMERS in rules.seen
        for fact in facts:
            try:
                customer: Customer = MODELS[Source.CUSTOMERS].from_json(fact.value or b"")
            except ValueError:  # deleted for a while, perhaps
                self._sure = False
                continue
            self._levels.add(customer.level)
            self.since_ms = fact.time_ms if self.since_ms is None else self.since_ms

    def in_time(self, time_ms: int) -> bool:
        """Whether they surely were known when something happened, or within the window after that."""
        return self._sure and self.since_ms is not None and self.since_ms <= time_ms + self._window_ms - SKEW_MS

    def had(self, level: str, time_ms: int) -> bool:
        """Whether they may have had a level then. A record of before may have been compacted away."""
        unsure = not self._sure or self.since_ms is None or self.since_ms > time_ms - SKEW_MS
        return level in self._levels or unsure


def _asked_twice(
    order: History, asked: dict[str, list[Observed[object]]], rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    for kind, rows in asked.items():
        times = sum(seen.message is not None for seen in rows)
        redriven = sum(seen.fact.about == kind for seen in order.of(Source.REFUSED))  # at most
        if times > 1 + redriven:
            counts["letters asked for again"] += times - 1
            if rules.exactly_once:
                says = f"its letter {kind} was asked for {times} times"
                yield Violation(Kind.LETTER_TWICE, order.id, says, facts_of(rows))


def _enriched_twice(order: History, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    enriched = order.of(Source.ENRICHED)
    if len(enriched) > 1:
        counts["enriched again"] += len(enriched) - 1
        if rules.exactly_once:
            says = f"enriched {len(enriched)} times"
            yield Violation(Kind.ENRICHED_TWICE, order.id, says, facts_of(enriched))


def _enriched(order: History, known: _Known, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    assert order.posted is not None
    enriched: list[Observed[OrderEnriched]] = order.of(Source.ENRICHED)
    validated = order.came_to(OrderState.VALIDATED)
    counts["enriched"] += bool(enriched)
    if not enriched:
        fact = validated.fact if validated else None
        if fact and known.in_time(fact.time_ms) and rules.complete(Source.ENRICHED, fact.time_ms, fact.partition):
            if rules.overdue(max(fact.time_ms, known.since_ms or 0)):
                says = "VALIDATED, its customer known, and not enriched"
                yield Violation(Kind.NOT_ENRICHED, order.id, says, facts_of(order.posts[:1], order.finals))
            else:
                counts["letters to come"] += 1
        return
    first = enriched[0]
    if validated is None or first.message.customer_id != order.posted.message.customer_id:
        why = "never VALIDATED" if validated is None else f"of customer {order.posted.message.customer_id}"
        says = f"enriched with customer {first.message.customer_id}, but {why}"
        yield Violation(Kind.ENRICHED_WRONGLY, order.id, says, facts_of(order.posts[:1], order.finals, enriched))
    else:
        yield from _level(order, first, known, rules)


def _level(order: History, enriched: Observed[OrderEnriched], known: _Known, rules: Rules) -> Iterator[Violation]:
    """The topic of the level: that of what was announced, and no other; and a level that the customer had."""
    level, fact = enriched.message.customer_level, enriched.fact
    wanted = CustomerLevel(level) if level in set(CustomerLevel) else CustomerLevel.BRONZE
    written = {LEVELS[source]: order.of(source) for source in LEVELS if order.of(source)}
    records = facts_of([enriched], *written.values())
    if not known.had(level, fact.time_ms):
        yield Violation(Kind.LEVEL_DIFFERS, order.id, f"enriched as {level}, which its customer is not", records)
    elif written.keys() - {wanted}:
        says = f"of level {level}, and written to {', '.join(sorted(written.keys() - {wanted}))}"
        yield Violation(Kind.LEVEL_DIFFERS, order.id, says, records)
    elif rules.exactly_once and len(written.get(wanted, ())) > len(order.of(Source.ENRICHED)):
        yield Violation(Kind.LEVEL_DIFFERS, order.id, f"written to {wanted} more than once", records)
    elif not written:
        [source] = [source for source in LEVELS if LEVELS[source] is wanted]
        if rules.complete(source, fact.time_ms, fact.partition):
            yield Violation(Kind.LEVEL_DIFFERS, order.id, f"of level {level}, and not written to {wanted}", records)


def _letter(order: History, kind: EmailKind, known: _Known, rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    rows = [seen for seen in order.of(Source.LETTERS) if seen.fact.about == kind]
    mail = [seen for seen in order.of(Source.MAIL) if seen.fact.about == kind]
    refused = [seen for seen in order.of(Source.REFUSED) if seen.fact.about == kind]
    announced = order.came_to(_TOLD[kind])
    if announced is None and not rows and not mail and not refused:
        return
    records = facts_of(order.posts[:1], order.finals, rows, refused, mail)
    if rows or mail or refused:
        if announced is None:
            says = f"there is a letter {kind}, and it never was {_TOLD[kind]}"
            yield Violation(Kind.LETTER_WRONG, order.id, says, records)
        elif kind is EmailKind.VALIDATED and (fault := _unpaid(order, announced.message, rules)) is not None:
            yield Violation(*fault, [*records, *facts_of(order.of(Source.PAYMENTS))])
        elif not mail and not refused and rows and rows[-1].message is None and Source.MAIL in rules.seen:
            says = f"its letter {kind} is done with, and was not delivered"
            yield Violation(Kind.LETTER_LOST, order.id, says, records)
        elif rows and rows[-1].message is not None:
            counts["letters to come"] += 1
        return
    due_ms = _due(order, kind, announced, known, rules)
    if due_ms is None:
        return
    if not rules.overdue(due_ms):
        counts["letters to come"] += 1
    elif rules.now_ms - due_ms < KEPT_MS or Source.MAIL in rules.seen:
        says = f"{_TOLD[kind]}, its customer known, and no letter was asked for"
        yield Violation(Kind.LETTER_MISSING, order.id, says, [*records, *facts_of(order.of(Source.PAYMENTS))])
    else:
        counts["unchecked letters"] += 1


def _due(order: History, kind: EmailKind, announced: Observed[Order] | None, known: _Known, rules: Rules) -> int | None:
    """From when on a letter is due; `None` if it is not, or nobody can tell."""
    if announced is None:
        return None
    due_ms = announced.fact.time_ms
    if kind is EmailKind.VALIDATED:
        payments = payments_of(order, rules)
        kept_ms = (rules.unpaid - TTL) / timedelta(milliseconds=1)
        apart_ms = (abs(seen.fact.time_ms - due_ms) for seen in order.of(Source.PAYMENTS))
        paid = payments.paid.covers(announced.message.value, rules.currency)
        if not paid or not payments.steady or max(apart_ms, default=0) > kept_ms:
            return None
        due_ms = max(due_ms, payments.last_ms)
    return max(due_ms, known.since_ms or 0) if known.in_time(due_ms) else None


def _unpaid(order: History, validated: Order, rules: Rules) -> tuple[Kind, str, str] | None:
    """What is wrong with the confirmation of an order: it was not paid, by the sum that fulfilment goes by, too."""
    payments = payments_of(order, rules)
    if not payments.whole or not payments.steady or payments.paid.covers(validated.value, rules.currency):
        return None
    if not order.of(Source.PAYMENTS):
        return Kind.LETTER_WRONG, order.id, f"there is a letter {EmailKind.VALIDATED}, and nobody paid"
    paid, value = (format_amount(a, rules.currency) for a in (payments.paid.sum(rules.currency), validated.value))
    return Kind.CONFIRMED_UNPAID, order.id, f"it was confirmed, and its payments come to {paid} of {value}"
