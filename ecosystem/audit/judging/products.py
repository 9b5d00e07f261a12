"""Promise: each change of a product is one version, published and logged once, with an alert if it is suspicious."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from ecosystem.audit.database_rows import ProductRow
from ecosystem.audit.facts import Fact
from ecosystem.audit.judging.history import Observed, facts_of
from ecosystem.audit.judging.totals import ExpectedTotals
from ecosystem.audit.report import Rules, Violation, ViolationKind
from ecosystem.audit.sources import MODELS, SUBSCRIBERS, Source
from product_subscribers.security.processors import AlertRule
from schemas.api import ProductState
from schemas.messages import ProductAlert, ProductAlertKind, ProductEvent, ProductEventKind


class ProductFacts:
    """All facts about one product of the product service."""

    def __init__(self, code: str, facts: Iterable[Fact]) -> None:
        self.code = code
        self.moving = False
        self.unreadable: list[Fact] = []
        self._seen: dict[Source, list[Observed[Any]]] = {}
        for fact in facts:
            self.moving |= fact.late
            try:
                seen = Observed(MODELS[fact.source].from_json(fact.value or b""), fact)
            except ValueError:
                self.unreadable.append(fact)
            else:
                self._seen.setdefault(fact.source, []).append(seen)

    def of(self, source: Source) -> list[Observed[Any]]:
        return self._seen.get(source, [])


def judge(
    code: str,
    facts: Iterable[Fact],
    rules: Rules,
    counts: Counter[str],
    totals: ExpectedTotals | None = None,
    on_event: Callable[[str, Fact], None] = lambda event_id, fact: None,
) -> Iterator[Violation]:
    """Yields violations of one product.

    Adds the changes that monitoring has counted to `totals`. Calls `on_event` with the id of each change and alert, and
    its record.
    """
    product = ProductFacts(code, facts)
    counts["unreadable"] += len(product.unreadable)
    changes: dict[str, Observed[ProductEvent]] = {}
    for seen in product.of(Source.CHANGES):
        first = changes.setdefault(seen.message.event_id, seen)
        counts["changes published again"] += first is not seen
        if first.message != seen.message:
            text = f"change {seen.message.event_id} was published with different contents"
            yield Violation(ViolationKind.CHANGE_DIFFERS, code, text, facts_of([first, seen]))
    history = list(changes.values())
    if totals is not None:
        counted = product.of(Source.MONITORING_VERSIONS)
        totals.add(history, counted[-1].message.version if counted else 0)
        totals.moving |= product.moving
    for seen in (*history, *product.of(Source.ALERTS)):
        on_event(seen.message.event_id, seen.fact)
    counts["changes"] += len(history)
    yield from _versions(code, history, rules)
    if not product.moving:
        yield from _database(product, history, rules, counts)
        yield from _log(product, history, rules, counts)
        yield from _subscribers(product, history, rules, counts)
    yield from _alerts(product, history, rules, counts)


def _versions(code: str, history: Sequence[Observed[ProductEvent]], rules: Rules) -> Iterator[Violation]:
    """Versions must count from 1, or from the first record of the topic, in order and without gaps."""
    expected = history[0].message.version if history and rules.from_ms.get(Source.CHANGES) else 1
    for seen in history:
        if seen.message.version != expected:
            text = f"version {seen.message.version} was published where {expected} was expected"
            yield Violation(ViolationKind.VERSIONS_DIFFER, code, text, facts_of([seen]))
            return
        expected += 1


def _database(
    product: ProductFacts, history: Sequence[Observed[ProductEvent]], rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    """The version read before the end offsets must be published; the last published version must be in the row read
    after."""
    if Source.PRODUCT_ROWS_AFTER not in rules.seen:
        return
    last = history[-1] if history else None
    published = last.message.version if last else 0
    for seen in product.of(Source.PRODUCT_ROWS_BEFORE):
        row: ProductRow = seen.message
        if row.version > published and (row.published or rules.overdue(seen.fact.time_ms)):
            how = "its message is marked as published" if row.published else "its message is still in the outbox"
            text = f"version {row.version} is in the database, and was not published: {how}"
            yield Violation(ViolationKind.CHANGE_LOST, product.code, text, facts_of(history[-1:], [seen]))
        elif row.version > published:
            counts["to be published"] += 1
    rows = product.of(Source.PRODUCT_ROWS_AFTER)
    counts["products stored"] += len(rows)
    stored: ProductRow | None = rows[-1].message if rows else None
    if last is not None and (stored is None or stored.version < published):
        text = f"version {published} was published, and the database has {stored.version if stored else 'none'}"
        yield Violation(ViolationKind.CHANGE_UNKNOWN, product.code, text, facts_of([last], rows))
    elif last is not None and stored is not None and stored.version == published and not _same(stored, last.message):
        text = f"version {published} was published with other content than in the database"
        yield Violation(ViolationKind.CHANGE_DIFFERS, product.code, text, facts_of([last], rows))


def _same(row: ProductRow, event: ProductEvent) -> bool:
    gone = event.kind is ProductEventKind.WITHDRAWN
    state = ProductState.WITHDRAWN if gone else ProductState.ACTIVE
    return (row.name, row.price, row.state) == (event.name, event.price, state)


def _log(
    product: ProductFacts, history: Sequence[Observed[ProductEvent]], rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    """The log of products must have each change, and nothing else. It was read after the topics and may be ahead."""
    if Source.PRODUCT_LOG not in rules.seen:
        return
    logged: dict[str, Observed[ProductEvent]] = {seen.message.event_id: seen for seen in product.of(Source.PRODUCT_LOG)}
    counts["changes logged"] += len(logged)
    for seen in history:
        entry = logged.pop(seen.message.event_id, None)
        if entry is None and not rules.overdue(seen.fact.time_ms):
            counts["to be logged"] += 1
        elif entry is None:
            text = f"version {seen.message.version} is not in the log"
            yield Violation(ViolationKind.LOG_DIFFERS, product.code, text, facts_of([seen]))
        elif entry.message != seen.message:
            text = f"version {seen.message.version} has other content in the log"
            yield Violation(ViolationKind.LOG_DIFFERS, product.code, text, facts_of([seen, entry]))
    published = history[-1].message.version if history else 0
    for entry in logged.values():
        if entry.message.version <= published and not rules.from_ms.get(Source.CHANGES):
            text = f"the log has a version {entry.message.version} that was not published"
            yield Violation(ViolationKind.LOG_DIFFERS, product.code, text, facts_of([entry]))


def _subscribers(
    product: ProductFacts, history: Sequence[Observed[ProductEvent]], rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    """Each subscriber must have read the last version."""
    last = history[-1] if history else None
    for source, (name, _) in SUBSCRIBERS.items():
        if source not in rules.seen:
            continue
        rows = product.of(source)
        read, published = rows[-1].message.version if rows else 0, last.message.version if last else 0
        if read == published or (last is None and rules.from_ms.get(Source.CHANGES)):
            continue
        if last is not None and read < published and not rules.overdue(last.fact.time_ms):
            counts["to be read by subscribers"] += 1
        else:
            text = f"version {published} was published last, and {name} has read {read or 'none'}"
            yield Violation(ViolationKind.SUBSCRIBER_DIFFERS, product.code, text, facts_of(history[-1:], rows[-1:]))


def _alerts(
    product: ProductFacts, history: Sequence[Observed[ProductEvent]], rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    if Source.SECURITY_HISTORIES not in rules.seen:
        return
    alerts: list[Observed[ProductAlert]] = product.of(Source.ALERTS)
    by_change: dict[tuple[int, ProductAlertKind], list[Observed[ProductAlert]]] = {}
    for seen in alerts:
        by_change.setdefault((seen.message.version, seen.message.kind), []).append(seen)
    counts["alerts"] += len(by_change)
    for (version, kind), same in by_change.items():
        if len(same) > 1:
            counts["alerts published again"] += len(same) - 1
            if rules.exactly_once:
                text = f"{kind} of version {version} was published {len(same)} times"
                yield Violation(ViolationKind.ALERT_TWICE, product.code, text, facts_of(same))
    if product.moving or rules.from_ms.get(Source.CHANGES):
        return
    due = _suspicious(history, rules)
    for (version, kind), same in by_change.items():
        if (version, kind) not in due:
            text = f"{kind} of version {version}, which is not suspicious"
            yield Violation(ViolationKind.ALERT_DIFFERS, product.code, text, facts_of(same))
    for version, kind in due.keys() - by_change.keys():
        fact = due[version, kind].fact
        if rules.complete(Source.ALERTS, fact.time_ms, fact.partition):
            if rules.overdue(fact.time_ms):
                text = f"{kind} of version {version} was not published"
                yield Violation(ViolationKind.ALERT_DIFFERS, product.code, text, facts_of([due[version, kind]]))
            else:
                counts["alerts due"] += 1


def _suspicious(
    history: Sequence[Observed[ProductEvent]], rules: Rules
) -> dict[tuple[int, ProductAlertKind], Observed[ProductEvent]]:
    """Returns the changes that must have an alert, by the rule of product-security."""
    rule = AlertRule(rules.price_drop, rules.changes, rules.changes_window)
    found: dict[tuple[int, ProductAlertKind], Observed[ProductEvent]] = {}
    recent: Sequence[datetime] = ()
    too_many = False
    for number, seen in enumerate(history):
        event = seen.message
        recent = rule.recent_changes(recent, event.at)
        if number and rule.is_price_drop(history[number - 1].message.price, event.price):
            found[event.version, ProductAlertKind.PRICE_DROP] = seen
        if len(recent) > rule.changes and not too_many:
            found[event.version, ProductAlertKind.MANY_CHANGES] = seen
        too_many = len(recent) > rule.changes
    return found
