"""The promise about the product service: each change is one version, announced once, logged once, and told if it is
suspicious."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ecosystem.audit.facts import MODELS, Fact, Source
from ecosystem.audit.history import Seen, facts_of
from ecosystem.audit.report import Kind, Rules, Violation
from ecosystem.audit.rows import ProductRow
from schemas.api import ProductState
from schemas.messages import ProductEvent, ProductEventKind


class Catalogued:
    """All that is known of one product, as the product service has it."""

    def __init__(self, code: str, facts: Iterable[Fact]) -> None:
        self.code = code
        self.moving = False
        self.unreadable: list[Fact] = []
        self._seen: dict[Source, list[Seen[Any]]] = {}
        for fact in facts:
            self.moving |= fact.late
            try:
                seen = Seen(MODELS[fact.source].from_json(fact.value or b""), fact)
            except ValueError:
                self.unreadable.append(fact)
            else:
                self._seen.setdefault(fact.source, []).append(seen)

    def of(self, source: Source) -> list[Seen[Any]]:
        return self._seen.get(source, [])


def judge(code: str, facts: Iterable[Fact], rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
    """Violations of one product."""
    product = Catalogued(code, facts)
    counts["unreadable"] += len(product.unreadable)
    changes: dict[str, Seen[ProductEvent]] = {}
    for seen in product.of(Source.CHANGES):
        first = changes.setdefault(seen.message.event_id, seen)
        counts["changes announced again"] += first is not seen
        if first.message != seen.message:
            says = f"change {seen.message.event_id} was announced in two ways"
            yield Violation(Kind.CHANGE_DIFFERS, code, says, facts_of([first, seen]))
    history = list(changes.values())
    counts["changes"] += len(history)
    yield from _versions(code, history, rules)
    if not product.moving:
        yield from _database(product, history, rules, counts)


def _versions(code: str, history: Sequence[Seen[ProductEvent]], rules: Rules) -> Iterator[Violation]:
    """Versions count from 1, without gaps and in order; where the topic begins later, from there."""
    wanted = history[0].message.version if history and rules.from_ms.get(Source.CHANGES) else 1
    for seen in history:
        if seen.message.version != wanted:
            says = f"version {seen.message.version} was announced where {wanted} should be"
            yield Violation(Kind.VERSIONS_DIFFER, code, says, facts_of([seen]))
            return
        wanted += 1


def _database(
    product: Catalogued, history: Sequence[Seen[ProductEvent]], rules: Rules, counts: Counter[str]
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
