"""The promise about one product: what is reserved is what orders hold, at every moment, and never above the stock."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import NamedTuple

from ecosystem.audit.facts import Fact
from ecosystem.audit.report import Kind, Rules, Violation
from runtime.state.ttl_table import TTL
from schemas.messages import StockLevel
from validators.inventory.state import Stock

_SKEW_MS = 60_000
_NOTHING = Stock()


class _Announced:
    """The counts the warehouse gave, and which of them may have been in force at a time.

    A stock row tells the last count of its batch only, so those between two rows are taken from the warehouse's topic.
    """

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._levels: list[tuple[int, int | None]] = []
        self._at = 0
        for fact in facts:
            try:
                count = None if fact.value is None else StockLevel.from_json(fact.value).count
            except ValueError:
                continue
            self._levels.append((fact.time_ms, count))

    @property
    def last(self) -> tuple[int, int | None] | None:
        """When the warehouse announced a count last, and which; `None` for a product it no longer keeps."""
        return self._levels[-1] if self._levels else None

    def pass_to(self, count: int | None) -> int:
        """Moves on to where `count` was announced. Returns where it stood before."""
        was = self._at
        for at in range(was, len(self._levels)):
            if self._levels[at][1] == count:
                self._at = at
                break
        return was

    def highest(self, start: int, until_ms: int) -> int:
        """The highest count that may have been in force from announcement `start` until a time."""
        return max((c for ms, c in self._levels[start:] if c is not None and ms <= until_ms + _SKEW_MS), default=0)


class _Row(NamedTuple):
    stock: Stock
    fact: Fact


class _Held:
    """What the reservations of a product hold, change by change. `unsure` once pieces may have been held unseen."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._facts = iter(facts)
        self.now = 0
        self.unsure = False
        self.in_time: int | None = None
        self.late: set[int] = set()

    def come_to(self, reserved: int) -> bool:
        """Moves on until so many are held: `False` if that never comes."""
        while self.now != reserved:
            if not self._step():
                return False
        return True

    def finish(self) -> set[int]:
        """All that may be held at the ends that were found: one number, unless there were changes just then."""
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
    """Walks the product's stock next to its reservations, streams in the order of their logs; then counts what left."""
    announced, holding = _Announced(warehouse), _Held(held)
    before: _Row | None = None
    lost: _Row | None = None
    last: _Row | None = None
    ends: set[int] = set()
    negative, first_ms = False, rules.now_ms
    for fact in stock:
        try:
            row = _Row(_NOTHING if fact.value is None else Stock.from_json(fact.value), fact)
        except ValueError:
            yield Violation(Kind.UNREADABLE_ROW, product, "a row of its stock cannot be read", [fact])
            continue
        first_ms = min(first_ms, fact.time_ms)
        if row.stock.reserved < 0 and not negative:
            negative = True
            yield Violation(Kind.NEGATIVE, product, f"{row.stock.reserved} reserved", _pair(before, row))
        if violation := _oversold(product, before, row, announced):
            yield violation
        if fact.late:
            ends.add(row.stock.reserved)
        elif lost is None and not holding.come_to(row.stock.reserved):
            lost = row
        if not fact.late:
            last = row
        before = row
    yield from _sum(product, last, ends, lost, holding, first_ms, rules, counts)
    if last is not None and not ends and not rules.partial:
        yield from _count(product, last, announced, shipped, rules)
    counts["products"] += 1
    counts["reserved"] += before.stock.reserved if before else 0


def _oversold(product: str, before: _Row | None, row: _Row, announced: _Announced) -> Violation | None:
    """Lowering a count below what is reserved is the warehouse's right; reserving above the count is not."""
    start = announced.pass_to(row.stock.count)
    if before is None or row.stock.reserved <= before.stock.reserved:
        return None
    reserved, counts = row.stock.reserved, (before.stock.count or 0, row.stock.count or 0)
    if reserved <= max(counts) or reserved <= announced.highest(start, row.fact.time_ms):
        return None
    says = f"reserved went from {before.stock.reserved} to {reserved}, with {max(counts)} in stock"
    return Violation(Kind.OVERSOLD, product, says, _pair(before, row))


def _sum(
    product: str,
    last: _Row | None,
    ends: set[int],
    lost: _Row | None,
    holding: _Held,
    first_ms: int,
    rules: Rules,
    counts: Counter[str],
) -> Iterator[Violation]:
    held = holding.finish()
    reserved = {last.stock.reserved if last else 0, *ends}
    moving = len(held) > 1 or len(reserved) > 1
    counts["moving products"] += moving
    if not reserved & held:
        says = f"{_any(reserved)} reserved, while its orders hold {_any(held)}"
        yield Violation(Kind.SUM_DIFFERS, product, says, [last.fact] if last else [])
    elif lost is not None:
        forgotten = rules.now_ms - first_ms > TTL / timedelta(milliseconds=1)
        if holding.unsure or forgotten:
            counts["unchecked products"] += 1
        else:
            says = f"{lost.stock.reserved} were reserved, which its orders never held together"
            yield Violation(Kind.SUM_DIFFERS, product, says, [lost.fact])


def _count(
    product: str, row: _Row, announced: _Announced, shipped: Iterable[Fact], rules: Rules
) -> Iterator[Violation]:
    """What is counted in stock: what the warehouse announced last, less what was shipped since then.

    The announcement and the shipments are of different topics, so what was shipped at about that time may be part of
    the count, or not.
    """
    if announced.last is None:
        return
    at_ms, count = announced.last
    if not rules.overdue(at_ms):
        return
    surely = perhaps = 0
    for fact in shipped:
        pieces = int(fact.value or b"0")
        if fact.time_ms > at_ms + _SKEW_MS and rules.overdue(fact.time_ms) and not fact.late:
            surely += pieces
        elif fact.time_ms > at_ms - _SKEW_MS:
            perhaps += pieces
    if count is None:
        right = row.stock.count is None
    else:
        least, most = max(count - surely - perhaps, 0), max(count - surely, 0)
        right = row.stock.count is not None and least <= row.stock.count <= most
    if not right:
        says = f"{row.stock.count} in stock; the warehouse announced {count}, and {surely} were shipped since then"
        yield Violation(Kind.COUNT_DIFFERS, product, says, [row.fact])


def _any(numbers: set[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))


def _pair(before: _Row | None, row: _Row) -> list[Fact]:
    return [before.fact, row.fact] if before else [row.fact]
