"""The promise about the product service: each change is one version, announced once, logged once, and told if it is
suspicious."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from ecosystem.audit.database_rows import ProductRow
from ecosystem.audit.facts import MODELS, SUBSCRIBERS, Fact, Source
from ecosystem.audit.judging.history import Observed, facts_of
from ecosystem.audit.judging.totals import Sums
from ecosystem.audit.report import Kind, Rules, Violation
from product_subscribers.security.rule import AlertRule
from schemas.api import ProductState
from schemas.messages import ProductAlert, ProductAlertKind, ProductEvent, ProductEventKind


class Catalogued:
    """All that is known of one product, as the product service has it."""

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
    sums: Sums | None = None,
    told: Callable[[str, Fact], None] = lambda event_id, fact: None,
) -> Iterator[Violation]:
    """Violations of one product. `sums` gets what monitoring has counted of it, `told` the id of each change and each
    alert with its record."""
    product = Catalogued(code, facts)
    counts["unreadable"] += len(product.unreadable)
    changes: dict[str, Observed[ProductEvent]] = {}
    for seen in product.of(Source.CHANGES):
        first = changes.setdefault(seen.message.event_id, seen)
        counts["changes announced again"] += first is not seen
        if first.message != seen.message:
            says = f"change {seen.message.event_id} was announced in two ways"
            yield Violation(Kind.CHANGE_DIFFERS, code, says, facts_of([first, seen]))
    history = list(changes.values())
    if sums is not None:
        counted = product.of(Source.COUNTED)
        sums.add(history, counted[-1].message.version if counted else 0)
        sums.moving |= product.moving
    for seen in (*history, *product.of(Source.ALERTS)):
        told(seen.message.event_id, seen.fact)
    counts["changes"] += len(history)
    yield from _versions(code, history, rules)
    if not product.moving:
        yield from _database(product, history, rules, counts)
        yield from _log(product, history, rules, counts)
        yield from _heard(product, history, rules, counts)
    yield from _alerts(product, history, rules, counts)


def _versions(code: str, history: Sequence[Observed[ProductEvent]], rules: Rules) -> Iterator[Violation]:
    """Versions count from 1, without gaps and in order; where the topic begins later, from there."""
    wanted = history[0].message.version if history and rules.from_ms.get(Source.CHANGES) else 1
    for seen in history:
        if seen.message.version != wanted:
            says = f"version {seen.message.version} was announced where {wanted} should be"
            yield Violation(Kind.VERSIONS_DIFFER, code, says, facts_of([seen]))
            return
        wanted += 1


def _database(
    product: Catalogued, history: Sequence[Observed[ProductEvent]], rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    """The row as it was before the ends of the topics were found must be announced; what is announced must be in the
    row as it was after that."""
    if Source.PRODUCTS_AFTER not in rules.seen:
        return
    last = history[-1] if history else None
    announced = last.message.version if last else 0
    for seen in product.of(Source.PRODUCTS_BEFORE):
        row: ProductRow = seen.message
        if row.version > announced and (row.published or rules.overdue(seen.fact.time_ms)):
            how = "and marked as published" if row.published else "it still waits in the outbox"
            says = f"version {row.version} is in the database, and was not announced: {how}"
            yield Violation(Kind.CHANGE_LOST, product.code, says, facts_of(history[-1:], [seen]))
        elif row.version > announced:
            counts["to be announced"] += 1
    rows = product.of(Source.PRODUCTS_AFTER)
    counts["products kept"] += len(rows)
    kept: ProductRow | None = rows[-1].message if rows else None
    if last is not None and (kept is None or kept.version < announced):
        says = f"version {announced} was announced, and the database has {kept.version if kept else 'none'}"
        yield Violation(Kind.CHANGE_UNKNOWN, product.code, says, facts_of([last], rows))
    elif last is not None and kept is not None and kept.version == announced and not _same(kept, last.message):
        says = f"version {announced} was announced otherwise than the database has it"
        yield Violation(Kind.CHANGE_DIFFERS, product.code, says, facts_of([last], rows))


def _same(row: ProductRow, event: ProductEvent) -> bool:
    gone = event.kind is ProductEventKind.WITHDRAWN
    state = ProductState.WITHDRAWN if gone else ProductState.ACTIVE
    return (row.name, row.price, row.state) == (event.name, event.price, state)


def _log(
    product: Catalogued, history: Sequence[Observed[ProductEvent]], rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    """Each change is in the log of products, and nothing else. It was read after the topics: it may be ahead."""
    if Source.PRODUCT_LOG not in rules.seen:
        return
    logged: dict[str, Observed[ProductEvent]] = {seen.message.event_id: seen for seen in product.of(Source.PRODUCT_LOG)}
    counts["changes logged"] += len(logged)
    for seen in history:
        entry = logged.pop(seen.message.event_id, None)
        if entry is None and not rules.overdue(seen.fact.time_ms):
            counts["to be logged"] += 1
        elif entry is None:
            says = f"version {seen.message.version} is not in the log"
            yield Violation(Kind.LOG_DIFFERS, product.code, says, facts_of([seen]))
        elif entry.message != seen.message:
            says = f"version {seen.message.version} is otherwise in the log"
            yield Violation(Kind.LOG_DIFFERS, product.code, says, facts_of([seen, entry]))
    announced = history[-1].message.version if history else 0
    for entry in logged.values():
        if entry.message.version <= announced and not rules.from_ms.get(Source.CHANGES):
            says = f"the log has a version {entry.message.version} that was not announced"
            yield Violation(Kind.LOG_DIFFERS, product.code, says, facts_of([entry]))


def _heard(
    product: Catalogued, history: Sequence[Observed[ProductEvent]], rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    """Whoever listens has heard of the last version, each by itself."""
    last = history[-1] if history else None
    for source, (name, _) in SUBSCRIBERS.items():
        if source not in rules.seen:
            continue
        rows = product.of(source)
        heard, announced = rows[-1].message.version if rows else 0, last.message.version if last else 0
        if heard == announced or (last is None and rules.from_ms.get(Source.CHANGES)):
            continue
        if last is not None and heard < announced and not rules.overdue(last.fact.time_ms):
            counts["to be heard of"] += 1
        else:
            says = f"version {announced} was announced last, and {name} has heard of {heard or 'none'}"
            yield Violation(Kind.SUBSCRIBER_DIFFERS, product.code, says, facts_of(history[-1:], rows[-1:]))


def _alerts(
    product: Catalogued, history: Sequence[Observed[ProductEvent]], rules: Rules, counts: Counter[str]
) -> Iterator[Violation]:
    if Source.WATCHED not in rules.seen:
        return
    alerts: list[Observed[ProductAlert]] = product.of(Source.ALERTS)
    by_change: dict[tuple[int, ProductAlertKind], list[Observed[ProductAlert]]] = {}
    for seen in alerts:
        by_change.setdefault((seen.message.version, seen.message.kind), []).append(seen)
    counts["alerts"] += len(by_change)
    for (version, kind), same in by_change.items():
        if len(same) > 1:
            counts["alerts again"] += len(same) - 1
            if rules.exactly_once:
                says = f"{kind} of version {version} was told {len(same)} times"
                yield Violation(Kind.ALERT_TWICE, product.code, says, facts_of(same))
    if product.moving or rules.from_ms.get(Source.CHANGES):
        return
    due = _suspicious(history, rules)
    for (version, kind), same in by_change.items():
        if (version, kind) not in due:
            says = f"{kind} of version {version}, which is not suspicious"
            yield Violation(Kind.ALERT_DIFFERS, product.code, says, facts_of(same))
    for version, kind in due.keys() - by_change.keys():
        fact = due[version, kind].fact
        if rules.complete(Source.ALERTS, fact.time_ms, fact.partition):
            if rules.overdue(fact.time_ms):
                says = f"{kind} of version {version} was not told"
                yield Violation(Kind.ALERT_DIFFERS, product.code, says, facts_of([due[version, kind]]))
            else:
                counts["alerts to come"] += 1


def _suspicious(
    history: Sequence[Observed[ProductEvent]], rules: Rules
) -> dict[tuple[int, ProductAlertKind], Observed[ProductEvent]]:
    """What there is to tell of the changes, by the rules of who tells it."""
    guard = AlertRule(rules.price_drop, rules.changes, rules.changes_window)
    found: dict[tuple[int, ProductAlertKind], Observed[ProductEvent]] = {}
    recent: Sequence[datetime] = ()
    too_many = False
    for number, seen in enumerate(history):
        event = seen.message
        recent = guard.recent_changes(recent, event.at)
        if number and guard.is_price_drop(history[number - 1].message.price, event.price):
            found[event.version, ProductAlertKind.PRICE_DROP] = seen
        if len(recent) > guard.changes and not too_many:
            found[event.version, ProductAlertKind.MANY_CHANGES] = seen
        too_many = len(recent) > guard.changes
    return found
