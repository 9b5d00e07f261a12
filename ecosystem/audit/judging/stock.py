"""Promise: the reserved pieces of a product are those that its orders hold, and never above the stock."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import NamedTuple

from ecosystem.audit.facts import Fact
from ecosystem.audit.report import Rules, Violation, ViolationKind
from runtime.state.ttl_table import TTL
from schemas.messages import StockLevel
from validators.inventory.state import Stock

_SKEW_MS = 60_000
_EMPTY = Stock()


class _WarehouseCounts:
    """The counts that the warehouse published, and which of them may have applied at a time.

    A stock row has only the last count of its batch, so the counts between two rows come from the warehouse's topic.
    """

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._levels: list[tuple[int, int | None]] = []
        self._index = 0
        for fact in facts:
            try:
                count = None if fact.value is None else StockLevel.from_json(fact.value).count
            except ValueError:
                continue
            self._levels.append((fact.time_ms, count))

    @property
    def last(self) -> tuple[int, int | None] | None:
        """Time and value of the last count; the value is `None` for a withdrawn product."""
        return self._levels[-1] if self._levels else None

    def advance_to(self, count: int | None) -> int:
        """Advances to the next record with `count`. Returns the index before."""
        previous = self._index
        for index in range(previous, len(self._levels)):
            if self._levels[index][1] == count:
                self._index = index
                break
        return previous

    def highest(self, start: int, until_ms: int) -> int:
        """Returns the highest count that may have applied from record `start` until a time."""
        return max((c for ms, c in self._levels[start:] if c is not None and ms <= until_ms + _SKEW_MS), default=0)


class _Row(NamedTuple):
    stock: Stock
    fact: Fact


class _Holdings:
    """Pieces that the reservations of a product hold, change by change.

    `unsure`: an order may have held pieces before its first record. `in_time`: pieces before the first late change.
    """

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._facts = iter(facts)
        self.now = 0
        self.unsure = False
        self.in_time: int | None = None
        self.late: set[int] = set()

    def advance_to(self, reserved: int) -> bool:
        """Advances until this number is held. Returns whether that happens."""
        while self.now != reserved:
            if not self._step():
                return False
        return True

    def finish(self) -> set[int]:
        """Returns the numbers that may be held at the end offsets: one, unless there are late changes."""
        while self._step():
            pass
        return {self.now if self.in_time is None else self.in_time, *self.late}

    def _step(self) -> bool:
        fact = next(self._facts, None)
        if fact is None:
            return False
        change = int(fact.value or b"0")
        self.unsure |= change == 0
        if fact.late and self.in_time is None:
            self.in_time = self.now
        self.now += change
        if fact.late:
            self.late.add(self.now)
        return True


def judge(
    product: str,
    warehouse: Iterable[Fact],
    stock: Iterable[Fact],
    held: Iterable[Fact],
    rules: Rules,
    counts: Counter[str],
    shipped: Iterable[Fact] = (),
) -> Iterator[Violation]:
    """Judges stock against reservations, in the order of their logs; then the count against shipped pieces."""
    published, holdings = _WarehouseCounts(warehouse), _Holdings(held)
    before: _Row | None = None
    lost: _Row | None = None
    last: _Row | None = None
    ends: set[int] = set()
    negative, first_ms = False, rules.now_ms
    for fact in stock:
        try:
            row = _Row(_EMPTY if fact.value is None else Stock.from_json(fact.value), fact)
        except ValueError:
            yield Violation(ViolationKind.UNREADABLE_ROW, product, "a row of its stock is unreadable", [fact])
            continue
        first_ms = min(first_ms, fact.time_ms)
        if row.stock.reserved < 0 and not negative:
            negative = True
            yield Violation(ViolationKind.NEGATIVE, product, f"{row.stock.reserved} reserved", _pair(before, row))
        if violation := _oversold(product, before, row, published):
            yield violation
        if fact.late:
            ends.add(row.stock.reserved)
        elif lost is None and not holdings.advance_to(row.stock.reserved):
            lost = row
        if not fact.late:
            last = row
        before = row
    yield from _sum(product, last, ends, lost, holdings, first_ms, rules, counts)
    if last is not None and not ends and not rules.partial:
        yield from _count(product, last, published, shipped, rules)
    counts["products"] += 1
    counts["reserved"] += before.stock.reserved if before else 0


def _oversold(product: str, before: _Row | None, row: _Row, published: _WarehouseCounts) -> Violation | None:
    """Returns a violation if pieces above the count were reserved. The warehouse may lower the count below."""
    start = published.advance_to(row.stock.count)
    if before is None or row.stock.reserved <= before.stock.reserved:
        return None
    reserved, counts = row.stock.reserved, (before.stock.count or 0, row.stock.count or 0)
    if reserved <= max(counts) or reserved <= published.highest(start, row.fact.time_ms):
        return None
    text = f"reserved went from {before.stock.reserved} to {reserved}, with {max(counts)} in stock"
    return Violation(ViolationKind.OVERSOLD, product, text, _pair(before, row))


def _sum(
    product: str,
    last: _Row | None,
    ends: set[int],
    lost: _Row | None,
    holdings: _Holdings,
    first_ms: int,
    rules: Rules,
    counts: Counter[str],
) -> Iterator[Violation]:
    held = holdings.finish()
    reserved = {last.stock.reserved if last else 0, *ends}
    moving = len(held) > 1 or len(reserved) > 1
    counts["moving products"] += moving
    if not reserved & held:
        text = f"{_any(reserved)} reserved, while its orders hold {_any(held)}"
        yield Violation(ViolationKind.SUM_DIFFERS, product, text, [last.fact] if last else [])
    elif lost is not None:
        expired = rules.now_ms - first_ms > TTL / timedelta(milliseconds=1)
        if holdings.unsure or expired:
            counts["unchecked products"] += 1
        else:
            text = f"{lost.stock.reserved} were reserved, which its orders never held at the same time"
            yield Violation(ViolationKind.SUM_DIFFERS, product, text, [lost.fact])


def _count(
    product: str, row: _Row, published: _WarehouseCounts, shipped: Iterable[Fact], rules: Rules
) -> Iterator[Violation]:
    """The count in stock must be the last count of the warehouse less the pieces shipped since then.

    The count and the shipments are on different topics, so pieces shipped at about its time may be included or not.
    """
    if published.last is None:
        return
    at_ms, count = published.last
    if not rules.overdue(at_ms):
        return
    certain = possible = 0
    for fact in shipped:
        pieces = int(fact.value or b"0")
        if fact.time_ms > at_ms + _SKEW_MS and rules.overdue(fact.time_ms) and not fact.late:
            certain += pieces
        elif fact.time_ms > at_ms - _SKEW_MS:
            possible += pieces
    if count is None:
        right = row.stock.count is None
    else:
        least, most = max(count - certain - possible, 0), max(count - certain, 0)
        right = row.stock.count is not None and least <= row.stock.count <= most
    if not right:
        text = f"{row.stock.count} in stock; the warehouse published {count}, and {certain} were shipped since"
        yield Violation(ViolationKind.COUNT_DIFFERS, product, text, [row.fact])


def _any(numbers: set[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))


def _pair(before: _Row | None, row: _Row) -> list[Fact]:
    return [before.fact, row.fact] if before else [row.fact]
